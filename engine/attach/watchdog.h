// Cuts this process off from a daemon that can no longer take pages away from it, or may not believe those it has.
//
//   the daemon      how it is noticed                          within
//   is dead         its end of the events' socket hangs up     a wake-up
//   is stopped      it no longer moves the deadline page       the deadline it set last, 2 s
//   hangs           the same: its loop stamps the page         the same
//   makes no sense  a call finds it: CutOffSoon                a wake-up
//   has no lease    the page says when it ends; of no matter   a wake-up after the lease's end
//   any more        to a program that has mapped nothing but
//                   regions that are read without one: its
//                   stores are forbidden until there is one
//
// Cut off: every mapping of the session is sealed (SIGBUS from then on, also for who waits in a fault), then all calls
// fail, then kFenced goes to the regions' callbacks. It is for good: the program attaches again. The thread reads the
// events' socket too, but calls no callback, takes no lock that is held while something waits, and touches no
// registered memory: nothing that the application does or suffers keeps it from sealing.
//
// After a pause of the whole host, loads may see old data until this thread has run.

#pragma once

#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <thread>

#include "engine/attach/attach_messages.h"
#include "engine/attach/deadline_page.h"
#include "engine/mapping/unique_fd.h"

namespace mangrove {

class Watchdog {
 public:
  struct Actions {
    std::function<void()> cut_off;  // Once, at most.
    std::function<void(const AttachEvent&)> on_event;
    // There is no lease; called again and again. False: something is mapped that may not be used then.
    std::function<bool()> end_lease;
    // There is one. Called again and again. False: what is mapped cannot be used as it should.
    std::function<bool()> begin_lease;
  };

  // All are called on the thread of the watchdog.
  Watchdog(UniqueFd events_socket, DeadlineView deadline, Actions actions);
  // Waits for the thread. REQUIRES: in the process that made it.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // As if the daemon were gone. Thread-safe; waits for nothing.
  void CutOffSoon() { shutdown(events_socket_.get(), SHUT_RD); }
  // When the lease ends, as the daemon has said last. Thread-safe.
  int64_t lease_ns() const { return deadline_.lease_ns(); }

 private:
  void Run();
  // Until when it is to wait; 0: it is over.
  int64_t WaitsUntil() const;
  // False: the daemon is gone.
  bool ReadEvents();

  const UniqueFd events_socket_;
  const DeadlineView deadline_;
  const Actions actions_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

}  // namespace mangrove
