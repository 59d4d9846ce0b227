// Programs in processes of their own that map a region, and the threads that answer their faults.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/mapping/userfaultfd.h"
#include "tests/unit/engine/mapping_harness.h"

namespace mangrove::mapping_test {
namespace {

int64_t Repeated(uint8_t fill) {
  int64_t word = 0;
  std::memset(&word, fill, sizeof(word));
  return word;
}

uint64_t WordOf(const std::vector<std::byte>& page, size_t index) {
  uint64_t word = 0;
  std::memcpy(&word, page.data() + index * sizeof(word), sizeof(word));
  return word;
}

TEST(MappedFault, LoadSeesWhatWasInstalled) {
  Program program;
  Node node(16);
  node.Install(3, 7, Rights::kRead);
  program.Attach(node);
  EXPECT_EQ(program.Load(3 * kPageBytes + 8), Repeated(7));
  EXPECT_EQ(node.Acquisitions(), 0);
  EXPECT_EQ(node.clients().Counters(program.id())->read_faults, 1u);
  EXPECT_TRUE(Eventually([&] { return node.clients().Counters(program.id())->resolved == 1; }));
  EXPECT_EQ(program.Call({.op = Op::kState, .offset = 3 * kPageBytes}) & page_state::kRightsMask, 1);
  EXPECT_EQ(program.Call({.op = Op::kState, .offset = 4 * kPageBytes}), 0);
}

TEST(MappedFault, MissingPageIsAcquiredOnce) {
  Program program;
  Node node(16);
  program.Attach(node);
  EXPECT_EQ(program.Load(0), 0);
  EXPECT_EQ(program.Load(8), 0);
  EXPECT_EQ(node.Acquisitions(), 1);
  EXPECT_EQ(node.RightsOf(0), Rights::kRead);
}

TEST(MappedFault, StoreToAReadablePageRaisesItsRight) {
  Program program;
  Node node(16);
  node.Install(0, 1, Rights::kRead);
  program.Attach(node);
  EXPECT_EQ(program.Load(0), Repeated(1));
  EXPECT_EQ(node.Acquisitions(), 0);
  EXPECT_EQ(program.Store(0, 42), 0);
  EXPECT_EQ(node.Acquisitions(), 1);
  EXPECT_EQ(node.RightsOf(0), Rights::kWrite);
  EXPECT_EQ(WordOf(node.Content(0), 0), 42u);
  EXPECT_EQ(node.clients().Counters(program.id())->write_faults, 1u);
}

TEST(MappedFault, StoreToAnUnmappedPageTakesOneFault) {
  Program program;
  Node node(16);
  program.Attach(node);
  EXPECT_EQ(program.Store(kPageBytes, 5), 0);
  EXPECT_EQ(program.Load(kPageBytes), 5);
  const MappingCounters counters = *node.clients().Counters(program.id());
  EXPECT_EQ(counters.write_faults, 1u);
  EXPECT_EQ(counters.read_faults, 0u);
}

TEST(MappedFault, ProtectedPageFaultsOnTheNextStoreOnly) {
  Program program;
  Node node(16);
  program.Attach(node);
  EXPECT_EQ(program.Store(0, 1), 0);
  node.Protect(0);
  EXPECT_EQ(node.RightsOf(0), Rights::kRead);
  EXPECT_EQ(program.Load(0), 1);
  EXPECT_EQ(node.Acquisitions(), 1);
  EXPECT_EQ(program.Store(0, 2), 0);
  EXPECT_EQ(node.Acquisitions(), 2);
  EXPECT_EQ(WordOf(node.Content(0), 0), 2u);
}

TEST(MappedFault, ReadFaultOfAWritablePageMapsItWritable) {
  Program program;
  Node node(16);
  node.Install(0, 0, Rights::kWrite);
  program.Attach(node);
  EXPECT_EQ(program.Load(0), 0);
  EXPECT_EQ(program.Store(0, 9), 0);
  EXPECT_EQ(node.clients().Counters(program.id())->write_faults, 0u);
  node.Take(0);
  EXPECT_EQ(WordOf(node.Content(0), 0), 9u);
}

TEST(MappedFault, TakenPageComesBackAsItWas) {
  Program program;
  Node node(16);
  program.Attach(node);
  for (uint64_t i = 1; i < 100; ++i) {
    ASSERT_EQ(program.Store(8 * i, i), 0);
    node.Take(0);
    ASSERT_EQ(program.Load(8 * i), static_cast<int64_t>(i));
  }
}

TEST(MappedFault, RaiseNeedsNoFaultOfItsOwn) {
  Program program;
  Node node(16);
  node.Install(0, 0, Rights::kRead);
  program.Attach(node);
  EXPECT_EQ(program.Load(0), 0);
  node.Raise(0);
  EXPECT_EQ(program.Store(0, 3), 0);
  EXPECT_EQ(node.Acquisitions(), 0);
}

// Every increment is a load and a store, by one thread per word: a store that is lost makes the sum smaller.
// `in_place`: the program's mappings are write-protected, as those of an embedded node's own process.
void HammerWhile(int pages, bool in_place, const std::function<void(Node&, uint64_t)>& disturb) {
  Program program;
  Node node(16);
  MappedClientOptions options;
  options.own_process = in_place;
  program.Attach(node, std::move(options));
  ASSERT_EQ(program.Call({.op = Op::kHammer, .pages = static_cast<uint32_t>(pages), .offset = 0, .value = 2}), 0);
  for (uint64_t round = 0; round < 500; ++round) {
    const uint64_t page = round % static_cast<uint64_t>(pages);
    const std::atomic<uint8_t>& state = node.region().StateOf(kFirst + page);
    ASSERT_TRUE(Eventually([&] { return (state.load() & page_state::kMappedWritable) != 0; }));
    // At another moment of the program's run each time.
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(round % 50);
    while (std::chrono::steady_clock::now() < until) {
    }
    disturb(node, page);
  }
  const int64_t increments = program.Call({.op = Op::kStopHammer});
  ASSERT_GT(increments, 0);
  uint64_t sum = 0;
  for (int page = 0; page < pages; ++page) {
    node.Take(static_cast<uint64_t>(page));
    const auto content = node.Content(static_cast<uint64_t>(page));
    sum += WordOf(content, 0) + WordOf(content, 1);
  }
  EXPECT_EQ(sum, static_cast<uint64_t>(increments));
}

class StoresUnderChange : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Mapped, StoresUnderChange, testing::Bool(), [](const auto& in_place) {
  return std::string(in_place.param ? "WriteProtected" : "Replaced");
});

TEST_P(StoresUnderChange, AreNotLostWhenPagesAreTaken) {
  HammerWhile(1, GetParam(), [](Node& node, uint64_t page) { node.Take(page); });
}

TEST_P(StoresUnderChange, AreNotLostWhenPagesAreProtected) {
  HammerWhile(2, GetParam(), [](Node& node, uint64_t page) { node.Protect(page); });
}

TEST_P(StoresUnderChange, AreNotLostWhenPagesComeBackReadOnly) {
  HammerWhile(3, GetParam(), [](Node& node, uint64_t page) {
    node.Take(page);
    ASSERT_TRUE(node.AcquireForFault(kFirst + page, Rights::kRead, [] {}).ok());
    node.Protect(page);
    node.Raise(page);
    node.Protect(page);
  });
}

TEST(MappedFault, TwoProgramsShareThePage) {
  Program first;
  Program second;
  Node node(16);
  first.Attach(node);
  second.Attach(node);
  for (int i = 1; i < 50; ++i) {
    ASSERT_EQ(first.Store(0, static_cast<uint64_t>(i)), 0);
    ASSERT_EQ(second.Load(0), i);
    if (i % 5 == 0) node.Protect(0);
    ASSERT_EQ(second.Store(0, static_cast<uint64_t>(100 + i)), 0);
    if (i % 7 == 0) node.Take(0);
    ASSERT_EQ(first.Load(0), 100 + i);
  }
}

TEST(MappedFault, SystemCallsFaultToo) {
  Program program;
  Node node(16);
  node.Install(4, 2, Rights::kRead);
  node.Install(5, 3, Rights::kRead);
  program.Attach(node);
  EXPECT_EQ(program.Call({.op = Op::kWriteCall, .offset = 5 * kPageBytes - 100, .value = 200}), 100 * 2 + 100 * 3);
  EXPECT_EQ(program.Call({.op = Op::kReadCall, .offset = 5 * kPageBytes - 100, .value = 200}), 200);
  EXPECT_EQ(program.Call({.op = Op::kReadCall, .offset = 8 * kPageBytes - 100, .value = 200}), 200);
  const auto content = node.Content(8);
  EXPECT_EQ(content[99], std::byte{'r'});
  EXPECT_EQ(content[100], std::byte{0});
}

TEST(MappedFault, PageThatCannotBeHadIsABusErrorUntilHealed) {
  Program program;
  Node node(16);
  program.Attach(node);
  node.Refuse(2, Rights::kNone);
  EXPECT_EQ(program.Load(2 * kPageBytes), kBusError);
  EXPECT_TRUE(Eventually([&] { return node.clients().Counters(program.id())->poisoned == 1; }));
  EXPECT_EQ(program.Store(2 * kPageBytes, 1), kBusError);
  EXPECT_EQ(program.Call({.op = Op::kReadCall, .offset = 2 * kPageBytes, .value = 10}), -EFAULT);
  EXPECT_EQ(node.Acquisitions(), 1);
  const std::vector<PageRange> poisoned{{kFirst + 2, 1}};
  EXPECT_EQ(*node.clients().Poisoned(program.id()), poisoned);
  node.Admit(2);
  EXPECT_EQ(program.Load(2 * kPageBytes), kBusError);
  EXPECT_EQ(*node.clients().Heal(program.id(), {kFirst, 16}), poisoned);
  EXPECT_EQ(program.Call({.op = Op::kHeal, .offset = 2 * kPageBytes, .value = kPageBytes}), 0);
  EXPECT_EQ(program.Load(2 * kPageBytes), 0);
  EXPECT_EQ(program.Store(2 * kPageBytes, 1), 0);
  EXPECT_TRUE(node.clients().Poisoned(program.id())->empty());
  EXPECT_EQ(node.clients().Counters(program.id())->poisoned, 1u);
}

TEST(MappedFault, StoreThatCannotBeHadOnAReadablePageIsABusError) {
  Program program;
  Node node(16);
  node.Install(0, 6, Rights::kRead);
  node.Refuse(0, Rights::kRead);
  program.Attach(node);
  EXPECT_EQ(program.Load(0), Repeated(6));
  EXPECT_EQ(program.Store(0, 1), kBusError);
  EXPECT_EQ(program.Load(0), kBusError);
  EXPECT_EQ(node.RightsOf(0), Rights::kRead);
  EXPECT_EQ(WordOf(node.Content(0), 0), static_cast<uint64_t>(Repeated(6)));
  EXPECT_TRUE(Eventually([&] { return node.clients().Counters(program.id())->poisoned == 1; }));
  EXPECT_EQ(node.clients().Heal(program.id(), {kFirst, 1})->size(), 1u);
  EXPECT_EQ(program.Call({.op = Op::kHeal, .offset = 0, .value = kPageBytes}), 0);
  EXPECT_EQ(program.Load(0), Repeated(6));
}

TEST(MappedFault, AnotherProgramKeepsItsAccessToAPoisonedPage) {
  Program first;
  Program second;
  Node node(16);
  node.Install(0, 6, Rights::kRead);
  node.Refuse(0, Rights::kRead);
  first.Attach(node);
  second.Attach(node);
  EXPECT_EQ(second.Load(0), Repeated(6));
  EXPECT_EQ(first.Load(0), Repeated(6));
  EXPECT_EQ(first.Store(0, 1), kBusError);
  EXPECT_EQ(second.Load(0), Repeated(6));
}

TEST(MappedFault, OnePageThatWaitsDoesNotHoldUpTheOthers) {
  Program program;
  Node node(16);
  program.Attach(node);
  node.Block(0);
  program.Send({.op = Op::kTouchBoth, .offset = 0, .value = kPageBytes});
  EXPECT_EQ(program.Receive(), 0);
  EXPECT_EQ(node.RightsOf(0), Rights::kNone);
  EXPECT_TRUE(Eventually([&] { return node.Acquisitions() == 2; }));
  node.Admit(0);
  EXPECT_EQ(program.Load(0), 0);
}

TEST(MappedFault, FaultsOfOnePageAreServedOnce) {
  Program program;
  Node node(16);
  program.Attach(node);
  node.Block(0);
  program.Send({.op = Op::kTouchBoth, .offset = 0, .value = 8});
  EXPECT_TRUE(Eventually([&] { return node.clients().Counters(program.id())->coalesced == 1; }));
  EXPECT_TRUE(Eventually([&] { return node.Acquisitions() == 1; }));
  node.Admit(0);
  EXPECT_EQ(program.Receive(), 0);
  EXPECT_EQ(node.Acquisitions(), 1);
}

TEST(MappedFault, ReadOnlyProgramReadsAndFollowsChanges) {
  Program writer;
  Program reader(/*read_only=*/true);
  Node node(16);
  writer.Attach(node);
  reader.Attach(node);
  for (int i = 1; i < 50; ++i) {
    ASSERT_EQ(writer.Store(0, static_cast<uint64_t>(i)), 0);
    ASSERT_EQ(reader.Load(0), i);
    if (i % 3 == 0) node.Take(0);
    if (i % 4 == 0) node.Protect(0);
  }
  EXPECT_EQ(reader.Call({.op = Op::kWriteCall, .offset = 5 * kPageBytes, .value = 100}), 0);
}

TEST(MappedFault, ReadOnlyProgramOfAnotherUserCannotWrite) {
  Program reader(/*read_only=*/true, Program::User::kNobody);
  Node node(16);
  node.Install(0, 1, Rights::kRead);
  reader.Attach(node);
  EXPECT_EQ(reader.Load(0), Repeated(1));
  EXPECT_EQ(reader.Call({.op = Op::kTryWrite}), 0);
  EXPECT_EQ(WordOf(node.Content(0), 0), static_cast<uint64_t>(Repeated(1)));
}

TEST(MappedFault, ReadOnlyProgramCannotStoreToItsMapping) {
  Program reader(/*read_only=*/true);
  Node node(16);
  node.Install(0, 1, Rights::kWrite);
  reader.Attach(node);
  EXPECT_EQ(reader.Load(0), Repeated(1));
  reader.Send({.op = Op::kStore, .offset = 0, .value = 1});
  EXPECT_EQ(reader.Receive(), kNoAnswer);  // It died of SIGSEGV.
  EXPECT_EQ(WordOf(node.Content(0), 0), static_cast<uint64_t>(Repeated(1)));
}

TEST(MappedFault, ChildOfForkDoesNotHaveTheMapping) {
  Program program;
  Node node(16);
  program.Attach(node);
  EXPECT_EQ(program.Load(0), 0);
  const auto status = static_cast<int>(program.Call({.op = Op::kForkLoad, .offset = 0}));
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
}

TEST(MappedFault, KilledProgramHoldsNothingUp) {
  for (int round = 0; round < 10; ++round) {
    Program program;
    Node node(16);
    program.Attach(node);
    ASSERT_EQ(program.Call({.op = Op::kHammer, .pages = 3, .offset = 0, .value = 2}), 0);
    std::thread killer([&] { program.Kill(); });
    for (uint64_t i = 0; i < 300; ++i) {
      node.Protect(i % 3);
      node.Take((i + 1) % 3);
    }
    killer.join();
    node.clients().Remove(program.id());
    // Its last faults may still be under way: at most one of each of its threads.
    int takes = 0;
    do {
      node.Take(0);
    } while (node.RightsOf(0) != Rights::kNone && ++takes < 3);
    EXPECT_EQ(node.RightsOf(0), Rights::kNone);
    EXPECT_FALSE(node.clients().Counters(program.id()).ok());
  }
}

TEST(MappedFault, ProgramThatDiesInAFaultIsNoticed) {
  std::atomic<MappingId> gone{0};
  Program program;
  Node node(16);
  MappedClientOptions options;
  options.on_gone = [&](MappingId id) { gone.store(id); };
  program.Attach(node, std::move(options));
  node.Block(0);
  program.Send({.op = Op::kLoad, .offset = 0});
  ASSERT_TRUE(Eventually([&] { return node.Acquisitions() == 1; }));
  program.Kill();
  node.Admit(0);
  EXPECT_TRUE(Eventually([&] { return gone.load() == program.id(); }));
}

TEST(MappedFault, RemoveEndsWhileAFaultIsBeingServed) {
  Program program;
  Node node(16);
  program.Attach(node);
  node.Block(0);
  program.Send({.op = Op::kLoad, .offset = 0});
  ASSERT_TRUE(Eventually([&] { return node.Acquisitions() == 1; }));
  node.clients().Remove(program.id());
  node.Admit(0);
}

TEST(MappedFault, AddRefusesWhatIsNoUserfaultfd) {
  Node node(16);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[1]);
  MappedClientOptions options;
  options.userfaultfd.Reset(ends[0]);
  options.base = 0x7f0000000000;
  options.region = node.shared_region();
  EXPECT_EQ(node.clients().Add(std::move(options)).status().code(), absl::StatusCode::kInvalidArgument);
  auto userfaultfd = OpenUserfaultfd();
  ASSERT_TRUE(userfaultfd.ok()) << userfaultfd.status();
  MappedClientOptions unaligned;
  unaligned.userfaultfd = *std::move(userfaultfd);
  unaligned.region = node.shared_region();
  unaligned.base = 0x7f0000000123;
  EXPECT_EQ(node.clients().Add(std::move(unaligned)).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(MappedFault, EmbeddedNodeServesItsOwnProcess) {
  Node node(16);
  auto frames = node.region().OpenFrames();
  ASSERT_TRUE(frames.ok());
  auto mapping = LocalMapping::Create(frames->get(), node.region().size_bytes(), false);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  MappedClientOptions options;
  options.userfaultfd = (*mapping)->ReleaseUserfaultfd();
  options.base = reinterpret_cast<uint64_t>((*mapping)->base());
  options.region = node.shared_region();
  options.own_process = true;
  ASSERT_TRUE(node.clients().Add(std::move(options)).ok());
  auto* words = reinterpret_cast<std::atomic<uint64_t>*>((*mapping)->base());
  for (uint64_t i = 1; i < 100; ++i) {
    words[i].store(i);
    if (i % 2 == 0) node.Take(0);
    if (i % 3 == 0) node.Protect(0);
    ASSERT_EQ(words[i].load(), i);
  }
}

TEST(MappedFault, HugeSparseRegionCostsNothing) {
#ifdef __SANITIZE_THREAD__
  constexpr uint64_t kPages = uint64_t{1} << 24;  // 64 GiB: the sanitizer has no room for more.
#else
  constexpr uint64_t kPages = uint64_t{1} << 28;  // 1 TiB.
#endif
  Program program;
  Node node(kPages);
  program.Attach(node);
  EXPECT_EQ(program.Store((kPages - 1) * kPageBytes, 77), 0);
  EXPECT_EQ(program.Load((kPages - 1) * kPageBytes), 77);
  node.Take(kPages - 1);
  EXPECT_EQ(WordOf(node.Content(kPages - 1), 0), 77u);
}

}  // namespace
}  // namespace mangrove::mapping_test
