// Threads of the library inside an application: none of the application's signals is handled on them.

#pragma once

#include <signal.h>

#include <thread>
#include <utility>

namespace mangrove {

// While it lives, no handler runs on this thread.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

template <typename Body>
std::thread StartLibraryThread(Body body) {
  const SignalsBlocked blocked;
  return std::thread(std::move(body));
}

}  // namespace mangrove
