#include "engine/attach/liveness.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>

#include "absl/status/status.h"
#include "net/page_buffer.h"

namespace mangrove {

absl::StatusOr<std::unique_ptr<Liveness>> Liveness::Create() {
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of the page of liveness");
  std::unique_ptr<Liveness> liveness(new Liveness());
  liveness->flag_ = new (page) std::atomic<uint32_t>(1);
  liveness->process_ = getpid();
  if (madvise(page, kPageBytes, MADV_WIPEONFORK) != 0) return absl::ErrnoToStatus(errno, "MADV_WIPEONFORK");
  return liveness;
}

Liveness::~Liveness() { munmap(flag_, kPageBytes); }

bool Liveness::IsOwnProcess() const { return getpid() == process_; }

}  // namespace mangrove
