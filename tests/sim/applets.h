// Coroutines that can be ended at any moment: those of the programs on a node that crashes.
//
// A frame owns the tasks that it awaits, so ending the roots frees everything that they began. Applets that the node
// itself spawns are not roots of a group; the node ends them when it is destroyed.

#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <utility>
#include <vector>

#include "net/runtime/task.h"

namespace mangrove::sim {

class AppletGroup {
 public:
  AppletGroup() = default;
  ~AppletGroup() { EndAll(); }
  AppletGroup(const AppletGroup&) = delete;
  AppletGroup& operator=(const AppletGroup&) = delete;

  // Runs `task` until its first wait.
  void Run(Task<bool> task) { RunRoot(this, std::move(task)); }

  // Frees all frames. What would resume them must be gone. REQUIRES: not called by one of them.
  void EndAll() {
    while (!roots_.empty()) roots_.back()->Destroy();
  }
  size_t size() const { return roots_.size(); }

 private:
  struct Root {
    struct promise_type {
      AppletGroup* group;
      size_t index;

      promise_type(AppletGroup* owner, Task<bool>&) : group(owner), index(owner->roots_.size()) {
        group->roots_.push_back(this);
      }
      ~promise_type() {
        group->roots_[index] = group->roots_.back();
        group->roots_[index]->index = index;
        group->roots_.pop_back();
      }
      promise_type(const promise_type&) = delete;
      promise_type& operator=(const promise_type&) = delete;

      void Destroy() { std::coroutine_handle<promise_type>::from_promise(*this).destroy(); }
      Root get_return_object() { return {}; }
      std::suspend_never initial_suspend() noexcept { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() {}
      void unhandled_exception() { std::terminate(); }
    };
  };

  static Root RunRoot(AppletGroup* /*group*/, Task<bool> task) { co_await std::move(task); }

  std::vector<Root::promise_type*> roots_;
};

// How many of something are under way: one more while this lives.
class Counted {
 public:
  explicit Counted(int* running) : running_(running) { ++*running_; }
  ~Counted() { --*running_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  int* const running_;
};

}  // namespace mangrove::sim
