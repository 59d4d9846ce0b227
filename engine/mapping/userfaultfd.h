// userfaultfd, wrapped: every constant, ioctl and errno of it that the project uses is here and in userfaultfd.cc.
//
// The fault-side calls (Continue, ...) act on the address space of the process that opened the descriptor, which may be
// another one: they take the mmap lock of that process and may wait for it. The register-side calls run in the process
// that maps.

#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/unique_fd.h"
#include "engine/page_memory.h"

namespace mangrove {

// A new userfaultfd of this process, ready for registering, not blocking. Through /dev/userfaultfd (an unprivileged
// user needs read and write access to it: group mangrove), else by the system call (root). FailedPrecondition says what
// is missing: access, or a feature of the kernel.
absl::StatusOr<UniqueFd> OpenUserfaultfd();

// Registers [base, base + length) of this process. Read-write mappings (MAP_SHARED of the frames): missing, minor and
// write-protect faults. Read-only ones (MAP_PRIVATE and PROT_READ of a read-only descriptor): missing and minor.
absl::Status RegisterMapping(int userfaultfd, uint64_t base, uint64_t length, bool read_only);

// True if `fd` is a userfaultfd and not something else that a program passed.
bool IsUserfaultfd(int fd);

struct Fault {
  uint64_t address = 0;        // Anywhere in the page.
  bool is_store = false;       // A load otherwise.
  bool write_protect = false;  // The page is mapped, and a store met its write protection.
  uint32_t thread = 0;         // That waits.
};

// Reads waiting faults, without blocking. Returns how many; 0: none now; -1: the descriptor is of no use any more.
int ReadFaults(int userfaultfd, std::span<Fault> out);

// How a fault-side call ended.
enum class FaultCall : uint8_t {
  kDone,
  kExists,      // The page is mapped already. The waiters were not woken.
  kNoFrame,     // The memfd has no such page.
  kNotMapped,   // Nothing is registered there any more: nobody waits.
  kBusy,        // Mappings are changing; try again.
  kClientGone,  // The process has ended.
};

// Maps the page that is in the memfd and wakes who waits for it.
FaultCall ContinueFault(int userfaultfd, uint64_t address, uint64_t length, bool write_protected);
// The same of many pages that nobody waits for, as far as it goes. What is mapped already stays so, and is passed over so
// often: page by page, or, if the last pages matter most, half of what is left at a time.
struct Skips {
  uint64_t most;
  bool by_half;
};
void ContinueRun(int userfaultfd, uint64_t address, uint64_t length, bool write_protected, const Skips& allowed);
// Allows stores to the mapped page, and wakes. Does nothing but wake when the page is not mapped.
FaultCall AllowStores(int userfaultfd, uint64_t address, uint64_t length);
// Takes stores away from the page, mapped or not. No store is under way when it returns.
FaultCall ForbidStores(int userfaultfd, uint64_t address, uint64_t length);
// Forgets that the page, which is not mapped any more, was write-protected when it was. REQUIRES: it is not mapped;
// otherwise this allows stores to it.
FaultCall ForgetProtection(int userfaultfd, uint64_t address, uint64_t length);
// From now on accesses get SIGBUS; wakes. kExists if the page is mapped, or was when it was punched, write-protected.
FaultCall PoisonPage(int userfaultfd, uint64_t address, uint64_t length);
// Wakes who waits for the page; they try again.
FaultCall WakeFaults(int userfaultfd, uint64_t address, uint64_t length);

// Tries on a page of this process everything that is needed here. FailedPrecondition names what does not work.
absl::Status ProbeUserfaultfd();

}  // namespace mangrove
