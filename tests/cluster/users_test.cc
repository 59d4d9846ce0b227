// Programs of users without privileges: what they may do, and what the regions' owners keep from them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "tests/cluster/cluster.h"
#include "tests/nobody.h"

namespace mangrove::cluster_test {
namespace {

constexpr gid_t kSharedGroup = 54321;

// What is wrong, or "".
using Step = std::function<std::string()>;

std::string Expect(bool holds, const std::string& what) { return holds ? "" : what; }
std::string ExpectCode(const absl::Status& status, absl::StatusCode code, const std::string& what) {
  return Expect(status.code() == code, absl::StrCat(what, ": ", status.ToString()));
}

// In the child: nobody, in one more group.
void BecomeOther() {
  BecomeNobody({kSharedGroup});
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // It does not outlast a change of user.
}

int RunSteps(const std::vector<Step>& steps) {
  for (const Step& step : steps) {
    const std::string wrong = step();
    if (wrong.empty()) continue;
    std::cerr << "as nobody: " << wrong << "\n";
    return 1;
  }
  return 0;
}

class Users : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0u) << "this test gives up root's rights, and has to have them";
    cluster_.StartAll();
  }

  // Each in a process of its own, on different nodes.
  void AsRoot(const std::function<std::string(Session&)>& body) {
    Child root([&](const Child::Tell&) {
      const auto session = cluster_.Attach(1);
      return RunSteps({[&] { return body(*session); }});
    });
    ASSERT_EQ(root.AwaitEnd(), 0);
  }
  void AsNobody(const std::function<std::string(Session&)>& body) {
    Child nobody([&](const Child::Tell&) {
      BecomeOther();
      const auto session = Session::Attach({.socket_path = cluster_.socket(2), .limits = {.call_timeout_ms = 5000}});
      if (!session.ok()) {
        std::cerr << "as nobody: " << session.status() << "\n";
        return 1;
      }
      return RunSteps({[&] { return body(**session); }});
    });
    ASSERT_EQ(nobody.AwaitEnd(), 0);
  }

  Cluster cluster_;
};

// Covers: G04
TEST_F(Users, WithoutPrivilegesWorkOnTheirOwnRegions) {
  AsNobody([](Session& session) -> std::string {
    auto region = session.Reserve({.name = "mine", .size_bytes = 4 * kPageBytes});
    if (!region.ok()) return region.status().ToString();
    if (absl::Status s = (*region)->Allocate(0, 4 * kPageBytes, {}); !s.ok()) return s.ToString();
    auto base = (*region)->Map(0, 4 * kPageBytes);
    if (!base.ok()) return base.status().ToString();
    if (TryStore(*base, 7) != 0) return "a store failed";
    if (absl::Status s = (*region)->Flush(0, 4 * kPageBytes); !s.ok()) return s.ToString();
    return Expect((*region)->info().owner == getuid(), "the region has another owner");
  });
  // Root may do what it wants.
  AsRoot([](Session& session) -> std::string {
    auto region = session.Open("mine", AccessMode::kRead);
    if (!region.ok()) return region.status().ToString();
    uint64_t value = 0;
    if (absl::Status s = (*region)->Read(0, std::as_writable_bytes(std::span(&value, 1))); !s.ok()) return s.ToString();
    return Expect(value == 7, "another value");
  });
}

// Covers: G04
TEST_F(Users, AreKeptOutByOwnerGroupAndMode) {
  AsRoot([](Session& session) -> std::string {
    for (const auto& [name, mode] : std::vector<std::pair<std::string, uint16_t>>{
             {"secret", uint16_t{0600}}, {"readable", uint16_t{0604}}, {"open", uint16_t{0606}}}) {
      MakeRegion(session, name, kPageBytes, {}, mode);
    }
    auto shared = session.Reserve({.name = "group", .size_bytes = kPageBytes, .group = kSharedGroup, .mode = 0660});
    if (!shared.ok()) return shared.status().ToString();
    return std::string((*shared)->Allocate(0, kPageBytes, {}).message());
  });
  AsNobody([](Session& session) -> std::string {
    using absl::StatusCode;
    std::string wrong;
    wrong +=
        ExpectCode(session.Open("secret", AccessMode::kRead).status(), StatusCode::kPermissionDenied, "secret, read");
    wrong +=
        ExpectCode(session.Open("secret", AccessMode::kWrite).status(), StatusCode::kPermissionDenied, "secret, write");
    wrong += ExpectCode(session.Open("readable", AccessMode::kWrite).status(), StatusCode::kPermissionDenied,
                        "readable, write");
    wrong += ExpectCode(session.Open("open", AccessMode::kWrite).status(), StatusCode::kOk, "open, write");
    wrong += ExpectCode(session.Open("group", AccessMode::kWrite).status(), StatusCode::kOk, "group, write");
    wrong += ExpectCode(session.Free("open"), StatusCode::kPermissionDenied, "free");
    wrong += ExpectCode(session.Reserve({.name = "x", .size_bytes = kPageBytes, .owner = 0}).status(),
                        StatusCode::kPermissionDenied, "a region for root");
    if (!wrong.empty()) return wrong;
    auto open = Take(session.Open("open", AccessMode::kWrite));
    wrong += ExpectCode(open->Unallocate(0, kPageBytes), StatusCode::kPermissionDenied, "unallocate");
    wrong += ExpectCode(open->SetAttributes(0, kPageBytes, {.keep_in_ram = true}), StatusCode::kPermissionDenied,
                        "attributes");
    return wrong;
  });
}

// Covers: G04
TEST_F(Users, AReadOnlyAttachmentCannotWrite) {
  AsRoot([](Session& session) {
    MakeRegion(session, "r", kPageBytes, {}, 0604);
    return std::string();
  });
  AsNobody([](Session& session) -> std::string {
    using absl::StatusCode;
    auto region = session.Open("r", AccessMode::kRead);
    if (!region.ok()) return region.status().ToString();
    auto base = (*region)->Map(0, kPageBytes);
    if (!base.ok()) return base.status().ToString();
    const uint64_t value = 1;
    std::string wrong = Expect(TryLoad(*base) == 0, "a load failed");
    wrong += Expect(TryStore(*base, 1) == SIGSEGV, "a store was not refused");
    wrong +=
        ExpectCode((*region)->Write(0, std::as_bytes(std::span(&value, 1))), StatusCode::kPermissionDenied, "write");
    wrong += ExpectCode((*region)->Access(0, kPageBytes, AccessMode::kWrite, 1000).status(),
                        StatusCode::kPermissionDenied, "access");
    wrong += ExpectCode((*region)->Lock(0, kPageBytes, LockMode::kExclusive, 1000).status(),
                        StatusCode::kPermissionDenied, "lock");
    return wrong;
  });
}

}  // namespace
}  // namespace mangrove::cluster_test
