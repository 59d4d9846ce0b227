#include "net/runtime/loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "net/runtime/timer_heap.h"

namespace mangrove {
namespace {

// Counts down to zero; every wait is bounded.
class Latch {
 public:
  explicit Latch(int count) : count_(count) {}
  void Done() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--count_ == 0) changed_.notify_all();
  }
  bool Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [this] { return count_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_;
};

// The calling thread, and those that it starts, on one processor until the end.
class ScopedAffinity {
 public:
  ScopedAffinity() {
    EXPECT_EQ(sched_getaffinity(0, sizeof(before_), &before_), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  }
  ~ScopedAffinity() { sched_setaffinity(0, sizeof(before_), &before_); }

 private:
  cpu_set_t before_;
};

class LoopTest : public ::testing::TestWithParam<DurationNs> {
 protected:
  LoopTest() : loop_({.spin_ns = GetParam()}) {}
  void SetUp() override { ASSERT_TRUE(loop_.Start().ok()); }
  void TearDown() override { loop_.Stop(); }
  void OnLoop(absl::FunctionRef<void()> task) {
    Completion done;
    loop_.RunUntil(
        [&] {
          task();
          done.Set();
        },
        done);
  }

  Loop loop_;
};

INSTANTIATE_TEST_SUITE_P(Spin, LoopTest, ::testing::Values(0, 20 * kMicrosecond, kMillisecond));

TEST(TimerHeap, PopsInOrderOfDeadlineThenOfCreation) {
  TimerHeap heap;
  std::vector<int> order;
  heap.Add(20, [&] { order.push_back(3); });
  heap.Add(10, [&] { order.push_back(1); });
  const auto cancelled = heap.Add(10, [&] { order.push_back(99); });
  heap.Add(10, [&] { order.push_back(2); });
  heap.Add(30, [&] { order.push_back(4); });
  heap.Cancel(cancelled);
  heap.Cancel(cancelled);
  while (!heap.empty()) heap.Pop()();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4}));
}

TEST(TimerHeap, AnIdNeverNamesALaterTimerOfTheSameSlot) {
  TimerHeap heap;
  int runs = 0;
  const auto first = heap.Add(1, [&] { ++runs; });
  heap.Pop()();
  heap.Add(2, [&] { ++runs; });
  heap.Cancel(first);
  ASSERT_FALSE(heap.empty());
  heap.Pop()();
  EXPECT_EQ(runs, 2);
}

TEST(TimerHeap, ManyRandomTimersPopSorted) {
  TimerHeap heap;
  uint64_t random = 12345;
  std::vector<Clock::TimerId> ids;
  for (int i = 0; i < 5000; ++i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    ids.push_back(heap.Add(static_cast<TimeNs>(random >> 50), [] {}));
    if (i % 3 == 0) heap.Cancel(ids[random % ids.size()]);
  }
  TimeNs last = 0;
  while (!heap.empty()) {
    EXPECT_LE(last, heap.Earliest());
    last = heap.Earliest();
    heap.Pop()();
  }
}

TEST_P(LoopTest, RunsEveryPostOfManyThreadsOnceInTheOrderOfItsThread) {
  constexpr int kThreads = 4;
  constexpr int kPosts = 25'000;
  std::vector<int> last(kThreads, -1);
  bool ordered = true;
  Latch done(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        loop_.Post([&, t, i] {
          if (!loop_.IsDriving() || last[t] != i - 1) ordered = false;
          last[t] = i;
          if (i == kPosts - 1) done.Done();
        });
        // Lets the loop fall asleep now and then.
        if (i % 4096 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    });
  }
  EXPECT_TRUE(done.Wait());
  for (auto& thread : threads) thread.join();
  OnLoop([&] { EXPECT_TRUE(ordered); });
}

TEST_P(LoopTest, RunUntilFromManyThreadsRunsEachStartOnceUnderOneDriver) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 3'000;
  int64_t count = 0;  // Only of the loop.
  std::atomic<int> inside{0};
  std::atomic<bool> alone{true};
  Latch done(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kCalls; ++i) {
        Completion completion;
        auto start = [&] {
          if (inside.fetch_add(1) != 0) alone = false;
          ++count;
          // Half is done at once, half later, by a timer or a deferred call.
          if (i % 4 == 0) {
            loop_.CallSoon([&] { completion.Set(); });
          } else if (i % 4 == 1) {
            loop_.CallAt(loop_.Now() + 30 * kMicrosecond, [&] { completion.Set(); });
          } else {
            completion.Set();
          }
          inside.fetch_sub(1);
        };
        loop_.RunUntil(start, completion);
        EXPECT_TRUE(completion.IsSet());
      }
      done.Done();
    });
  }
  EXPECT_TRUE(done.Wait());
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(alone);
  OnLoop([&] { EXPECT_EQ(count, kThreads * kCalls); });
}

// One that calls again at once does not keep off those who were told to drive and are still waking up.
TEST_P(LoopTest, CallersThatWaitAreServedTogether) {
  constexpr int kThreads = 4;
  std::atomic<bool> stop{false};
  std::array<std::atomic<int>, kThreads> calls{};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (; !stop; ++calls[t]) {
        Completion completion;
        auto start = [&] { loop_.CallAt(loop_.Now() + 500 * kMicrosecond, [&] { completion.Set(); }); };
        loop_.RunUntil(start, completion);
      }
    });
  }
  const auto busiest = [&] { return std::max_element(calls.begin(), calls.end())->load(); };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (busiest() < 400 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(busiest(), 400);
  stop = true;
  for (auto& thread : threads) thread.join();
  const auto [least, most] = std::minmax_element(calls.begin(), calls.end());
  EXPECT_GT(least->load(), most->load() / 3);
}

// It neither wakes the one that sleeps nor waits for it.
TEST_P(LoopTest, ACallBesideASleepingCallerIsBegunByItsOwnThread) {
  Completion late;
  std::thread sleeper([&] { loop_.RunUntil([] {}, late); });
  bool own = false;
  for (int tries = 0; tries < 1000 && !own; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // Until it sleeps.
    OnLoop([&, caller = std::this_thread::get_id()] { own = std::this_thread::get_id() == caller; });
  }
  EXPECT_TRUE(own);
  EXPECT_FALSE(late.IsSet());
  Completion timed;
  loop_.RunUntil([&] { loop_.CallAt(loop_.Now() + kMillisecond, [&] { timed.Set(); }); }, timed);
  // I4: the sleeper is not on the futex.
  OnLoop([&] { late.Set(); });
  sleeper.join();
}

// Each has something of its own to wait for; whoever is done first goes first, whoever has the watch.
TEST_P(LoopTest, CallersOfDifferentLengthsDoNotWaitForEachOther) {
  constexpr int kThreads = 6;
  std::atomic<bool> stop{false};
  std::atomic<int> late{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const DurationNs length = t * t * kMillisecond;
      while (!stop) {
        Completion completion;
        const TimeNs begin = loop_.Now();
        loop_.RunUntil(
            [&] {
              if (length == 0) return completion.Set();
              loop_.CallAt(loop_.Now() + length, [&] { completion.Set(); });
            },
            completion);
        // Far beyond what a busy machine does to a thread.
        if (loop_.Now() - begin > length + 10 * kSecond) ++late;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(late, 0);
}

// What a remote peer does to the loop: an event on a descriptor at any moment, whoever drives.
TEST_P(LoopTest, NoEventIsLostBetweenCallersAndTheOwnThread) {
  constexpr int kRounds = 6'000;
  const int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  ASSERT_GE(event_fd, 0);
  std::atomic<uint64_t> seen{0};
  OnLoop([&] {
    loop_.AddFd(event_fd, EPOLLIN, [&](uint32_t) {
      uint64_t count = 0;
      if (read(event_fd, &count, sizeof(count)) == sizeof(count)) seen.fetch_add(count);
    });
  });
  std::atomic<bool> stop{false};
  // A caller that comes and goes all the time.
  std::thread caller([&] {
    int i = 0;
    while (!stop) {
      Completion completion;
      loop_.RunUntil(
          [&] {
            if (++i % 2 == 0) {
              completion.Set();
            } else {
              loop_.CallAt(loop_.Now() + 10 * kMicrosecond, [&] { completion.Set(); });
            }
          },
          completion);
    }
  });
  bool lost = false;
  for (uint64_t i = 1; i <= kRounds && !lost; ++i) {
    const uint64_t one = 1;
    ASSERT_EQ(write(event_fd, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (seen.load() < i && !lost) {
      lost = std::chrono::steady_clock::now() > deadline;
      std::this_thread::yield();
    }
  }
  stop = true;
  caller.join();
  EXPECT_FALSE(lost) << "after " << seen.load() << " events";
  OnLoop([&] { loop_.RemoveFd(event_fd); });
  close(event_fd);
}

TEST_P(LoopTest, TimersFireInOrderAndNotEarly) {
  Latch done(1);
  std::vector<int> order;
  bool early = false;
  OnLoop([&] {
    const TimeNs base = loop_.Now();
    auto at = [&](DurationNs after, int name) {
      loop_.CallAt(base + after, [&, after, name, base] {
        early |= loop_.Now() < base + after;
        order.push_back(name);
        if (name == 4) done.Done();
      });
    };
    at(3 * kMillisecond, 3);
    at(1 * kMillisecond, 1);
    at(30 * kMillisecond, 4);
    at(1 * kMillisecond, 2);
    loop_.Cancel(loop_.CallAt(base, [&] { order.push_back(99); }));
  });
  ASSERT_TRUE(done.Wait());
  OnLoop([&] {
    EXPECT_FALSE(early);
    EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4}));
  });
}

TEST_P(LoopTest, ATimerArmedByACallerThatLeftFiresOnTheOwnThread) {
  Latch done(1);
  OnLoop([&] { loop_.CallAt(loop_.Now() + 2 * kMillisecond, [&] { done.Done(); }); });
  EXPECT_TRUE(done.Wait());
}

// Callers that come often leave the loop without arming it: whatever comes then is served all the same.
TEST_P(LoopTest, ServesWhatComesAfterABurstOfCalls) {
  constexpr int kRounds = 300;
  const int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  ASSERT_GE(event_fd, 0);
  std::unique_ptr<Latch> served;
  OnLoop([&] {
    loop_.AddFd(event_fd, EPOLLIN, [&](uint32_t) {
      uint64_t count = 0;
      if (read(event_fd, &count, sizeof(count)) == sizeof(count)) served->Done();
    });
  });
  for (int round = 0; round < kRounds; ++round) {
    served = std::make_unique<Latch>(3);
    // At another moment of the thread's looks each time; sometimes none has begun yet.
    for (int i = 0; i < 5 + round % 40; ++i) OnLoop([] {});
    OnLoop([&] { loop_.CallAt(loop_.Now() + 50 * kMicrosecond, [&] { served->Done(); }); });
    loop_.Post([&] { served->Done(); });
    const uint64_t one = 1;
    ASSERT_EQ(write(event_fd, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
    ASSERT_TRUE(served->Wait()) << "round " << round;
  }
  OnLoop([&] { loop_.RemoveFd(event_fd); });
  close(event_fd);
}

// It is the processor time of a while that is looked at: of the first that others leave enough of the processor before.
TEST_P(LoopTest, SleepsWhenABurstOfCallsIsOver) {
  const auto used = [] {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<TimeNs>(now.tv_sec) * kSecond + now.tv_nsec;
  };
  for (int i = 0; i < 1000; ++i) OnLoop([] {});
  TimeNs used_of_a_while = kForever;
  for (int i = 0; i < 20 && used_of_a_while >= 2 * kMillisecond; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const TimeNs before = used();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    used_of_a_while = used() - before;
  }
  EXPECT_LT(used_of_a_while, 2 * kMillisecond);
}

TEST_P(LoopTest, CallSoonRunsAfterWhatIsDueAndNeverInside) {
  std::vector<int> order;
  Completion completion;
  loop_.RunUntil(
      [&] {
        loop_.CallSoon([&] {
          order.push_back(3);
          completion.Set();
        });
        loop_.CallAt(loop_.Now() - kMillisecond, [&] { order.push_back(2); });
        order.push_back(1);
      },
      completion);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST_P(LoopTest, AHandlerMayRemoveItsOwnDescriptor) {
  const int event_fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
  std::atomic<int> calls{0};
  Latch done(1);
  OnLoop([&] {
    loop_.AddFd(event_fd, EPOLLIN, [&, event_fd](uint32_t events) {
      EXPECT_TRUE(events & EPOLLIN);
      ++calls;
      loop_.RemoveFd(event_fd);
      done.Done();
    });
  });
  EXPECT_TRUE(done.Wait());
  OnLoop([] {});
  EXPECT_EQ(calls, 1);
  close(event_fd);
}

// Who waits for what a descriptor brings, beside callers of all lengths: duty passes between these and the own thread in every
// way. Once it is lost nobody looks at descriptors any more.
TEST_P(LoopTest, DutyIsNotLostWhereCallersComeAndGo) {
  constexpr int kClients = 4;
  constexpr int kCallers = 4;
  std::array<int, kClients> fds{};
  std::array<std::atomic<int>, kClients> handled{};
  OnLoop([&] {
    for (int c = 0; c < kClients; ++c) {
      fds[c] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
      loop_.AddFd(fds[c], EPOLLIN, [&, c](uint32_t) {
        uint64_t count = 0;
        if (read(fds[c], &count, sizeof(count)) == sizeof(count)) handled[c].fetch_add(1);
      });
    }
  });
  std::atomic<bool> stop{false};
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < kCallers; ++c) {
    threads.emplace_back([&, c] {
      for (int i = 0; !stop; ++i) {
        Completion done;
        const auto start = [&] {
          if ((c + i) % 3 == 0) return done.Set();
          loop_.CallAt(loop_.Now() + (c + i) % 5 * 10 * kMicrosecond, [&] { done.Set(); });
        };
        loop_.RunUntil(start, done);
        if (i % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100 * (c + 1)));
      }
    });
  }
  for (int c = 0; c < kClients; ++c) {
    threads.emplace_back([&, c] {
      for (int i = 1; i <= 1000 && lost == 0; ++i) {
        const uint64_t one = 1;
        if (write(fds[c], &one, sizeof(one)) != sizeof(one)) ++lost;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (handled[c] < i && lost == 0) {
          if (std::chrono::steady_clock::now() > end) ++lost;
          std::this_thread::yield();
        }
      }
    });
  }
  for (int c = 0; c < kClients; ++c) threads[kCallers + c].join();
  stop = true;
  for (int c = 0; c < kCallers; ++c) threads[c].join();
  EXPECT_EQ(lost, 0);
  OnLoop([&] {
    for (int fd : fds) {
      loop_.RemoveFd(fd);
      close(fd);
    }
  });
}

// A caller that never sleeps, since there is always something to do, says that its wait is long all the same.
TEST_P(LoopTest, ALongWaitIsToldOnceHoweverBusyTheLoopIs) {
  int told = 0;
  const auto tell = [&] { ++told; };
  Completion done(tell);
  const TimeNs end = loop_.Now() + 20 * kMillisecond;
  std::function<void()> again = [&] { loop_.Now() < end ? loop_.CallSoon(again) : done.Set(); };
  loop_.RunUntil(again, done);
  EXPECT_EQ(told, 1);
}

// A poller makes way for the thread that it waits for; both are to have one processor here.
TEST_P(LoopTest, WhatIsExpectedFromAThreadOnTheSameProcessorComes) {
  const ScopedAffinity one_processor;
  OnLoop([&] { loop_.ExpectPosts(1); });
  for (int i = 0; i < 20; ++i) {
    Completion done;
    std::thread other;
    loop_.RunUntil([&] { other = std::thread([&] { loop_.Post([&] { done.Set(); }); }); }, done);
    other.join();
  }
  OnLoop([&] { loop_.ExpectPosts(-1); });
}

TEST_P(LoopTest, AShortWaitIsNotTold) {
  // On a busy machine a wait may grow long in between.
  bool told = true;
  for (int attempt = 0; told && attempt < 100; ++attempt) {
    told = false;
    const auto tell = [&] { told = true; };
    Completion done(tell);
    loop_.RunUntil([&] { done.Set(); }, done);
  }
  EXPECT_FALSE(told);
}

// What a visitor has queued in a source is handled although the sleeper's descriptors do not tell of it.
// Each call is over when it has begun, and the next one comes before another thread has the driver's mutex.
TEST_P(LoopTest, CallersThatNeverPauseKeepNoTimerAway) {
  constexpr DurationNs kCallTakes = 2 * kMillisecond;
  constexpr DurationNs kEvery = 10 * kMillisecond;
  constexpr DurationNs kFor = kSecond;
  int fired = 0;
  std::function<void()> fire = [&] {
    ++fired;
    loop_.CallAt(loop_.Now() + kEvery, fire);
  };
  OnLoop([&] { fire(); });
  const TimeNs end = loop_.ExactNow() + kFor;
  while (loop_.ExactNow() < end) {
    OnLoop([&] {
      for (const TimeNs until = loop_.ExactNow() + kCallTakes; loop_.ExactNow() < until;) {
      }
    });
  }
  OnLoop([&] { EXPECT_GE(fired, kFor / kEvery / 4); });
}

TEST_P(LoopTest, WhatAVisitorQueuesInASourceIsHandled) {
  struct Source final : PollSource {
    bool Poll() override {
      if (!queued) return false;
      queued = false;
      if (sleeper != nullptr) std::exchange(sleeper, nullptr)->Set();
      return true;
    }
    int WaitFd() const override { return -1; }
    bool MaySleep() override { return !queued; }
    bool MayHaveQueued() const override { return queued; }
    bool queued = false;
    Completion* sleeper = nullptr;
  };
  Source source;
  OnLoop([&] { loop_.AddSource(&source); });
  for (int i = 0; i < 20; ++i) {
    Completion slept;
    Latch waits(1);
    std::thread caller([&] {
      loop_.RunUntil(
          [&] {
            source.sleeper = &slept;
            waits.Done();
          },
          slept);
    });
    ASSERT_TRUE(waits.Wait());
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // Mostly until it sleeps; it holds either way.
    OnLoop([&] { source.queued = true; });
    caller.join();
  }
  OnLoop([&] { loop_.RemoveSource(&source); });
}

TEST(Loop, StopDropsWhatWasPostedAndEndsPromptly) {
  auto held = std::make_shared<int>(1);
  {
    Loop loop({});
    ASSERT_TRUE(loop.Start().ok());
    for (int i = 0; i < 1000; ++i) loop.Post([held] {});
    loop.Stop();
    loop.Post([held] {});
  }
  EXPECT_EQ(held.use_count(), 1);
  for (int i = 0; i < 200; ++i) {
    Loop loop({.spin_ns = i % 2 == 0 ? 0 : 20 * kMicrosecond});
    ASSERT_TRUE(loop.Start().ok());
    loop.Stop();
  }
}

}  // namespace
}  // namespace mangrove
