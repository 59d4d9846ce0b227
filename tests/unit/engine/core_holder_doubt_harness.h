// A core holder that was away, and is in doubt.

#pragma once

#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

#include "directory/page_run.h"
#include "net/log.h"
#include "tests/unit/engine/core_holder_harness.h"

namespace mangrove {

class CoreHolderDoubt : public CoreHolderTest {
 protected:
  CoreHolderDoubt() { SetLogLevel(LogLevel::kOff); }
  ~CoreHolderDoubt() override { SetLogLevel(LogLevel::kInfo); }

  // Ten pages, of which the first eight are stored in version 9, from before this start.
  void StoreEightAndDoubt() {
    PutTen();
    for (uint64_t i = 0; i < 8; ++i) ASSERT_EQ(Call(Store(kBase + i, 5, V(9))).version, V(9));
    Restart();
    holder_->BeginDoubt(nullptr);
  }
  static Message PutLearned(PageId first, uint64_t count, uint64_t config) {
    Message put = Put(first, count, config);
    put.complete = true;
    return put;
  }
  // The version of the record on the disk; {0, 0}: there is none.
  Version OnDisk(PageId page) const {
    const auto it = store_.durable.pages.find(page.value);
    return it == store_.durable.pages.end() ? Version{} : it->second.version;
  }
  void ExpectNothingIsTold(const Message& answer) {
    EXPECT_EQ(answer.kind, MessageKind::kStoredInfo);
    EXPECT_EQ(answer.code, absl::StatusCode::kOk);
    EXPECT_FALSE(answer.have);
    EXPECT_FALSE(answer.complete);
    EXPECT_EQ(answer.version, Version{});
    EXPECT_EQ(answer.data, nullptr);
  }
  void ExpectNothingIsToldOf(PageId page) {
    ExpectNothingIsTold(Call(Query(page)));
    ExpectNothingIsTold(Call(Query(page, /*with_data=*/false)));
  }
  void ExpectTold(PageId page, Version version) {
    const Message answer = Call(Query(page));
    EXPECT_EQ(answer.code, absl::StatusCode::kOk);
    EXPECT_TRUE(answer.have);
    EXPECT_TRUE(answer.complete);
    EXPECT_EQ(answer.version, version);
    ASSERT_NE(answer.data, nullptr);
    EXPECT_EQ(answer.data->bytes[0], static_cast<std::byte>(version.counter));
  }
  // A run of stores; the answers by page.
  std::map<absl::uint128, Message> CallRun(PageId first, uint32_t count, Version version) {
    Message run = Store(first, 5, version);
    run.repeat = count;
    run.request = RequestId(1'000'000);
    auto data = NewPages(count);
    for (uint64_t i = 0; i < count; ++i) data.get()[i].bytes.fill(static_cast<std::byte>(version.counter));
    run.data = data;
    std::map<absl::uint128, Message> answers;
    holder_->Handle(run, [&](const Message& answer) {
      for (uint64_t i = 0; i < answer.repeat; ++i) {
        const Message one = PartOf(answer, i, 1);
        EXPECT_TRUE(answers.emplace(one.page.value, one).second) << "answered twice";
      }
    });
    store_.FinishAll();
    EXPECT_EQ(answers.size(), count);
    return answers;
  }
  absl::Status Delete(const std::vector<PageId>& pages) {
    absl::Status status = absl::UnknownError("not called");
    holder_->DeletePages(pages, [&](absl::Status s) { status = std::move(s); });
    store_.FinishAll();
    return status;
  }
  void Commit(StoreBatch batch) {
    store_.Commit(std::move(batch), [](const absl::Status& s) { EXPECT_TRUE(s.ok()); });
  }
};

}  // namespace mangrove
