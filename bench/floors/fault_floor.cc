#include "bench/floors/fault_floor.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "bench/timing.h"

namespace mangrove::bench {
namespace {

constexpr uint64_t kPages = 1024;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kContinueProtected = 2;  // UFFDIO_CONTINUE_MODE_WP, of kernels newer than the headers.

class BareMapping {
 public:
  BareMapping() {
    const int memory = static_cast<int>(Must(memfd_create("floor", MFD_CLOEXEC), "memfd_create"));
    Must(ftruncate(memory, kPages * kPage), "ftruncate");
    const std::vector<char> content(kPages * kPage, 1);
    Must(pwrite(memory, content.data(), content.size(), 0), "pwrite");
    void* mapped = mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (mapped == MAP_FAILED) Die("mapping the floor's memory");
    close(memory);
    base_ = static_cast<char*>(mapped);
    Register();
    handler_ = std::thread([this] { Handle(); });
  }

  ~BareMapping() {
    Must(write(stop_[1], "", 1), "write");
    handler_.join();
    munmap(base_, kPages * kPage);
    close(faults_);
  }
  BareMapping(const BareMapping&) = delete;
  BareMapping& operator=(const BareMapping&) = delete;

  // Unmaps every page; the frames stay.
  void Zap() { Must(madvise(base_, kPages * kPage, MADV_DONTNEED), "MADV_DONTNEED"); }
  void Load(uint64_t page) { static_cast<void>(*static_cast<volatile char*>(base_ + page % kPages * kPage)); }
  void Store(uint64_t page) { *static_cast<volatile char*>(base_ + page % kPages * kPage) = 2; }

 private:
  void Register() {
    faults_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    if (faults_ < 0) {
      const int device = static_cast<int>(Must(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), "/dev/userfaultfd"));
      faults_ = static_cast<int>(Must(ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK), "userfaultfd"));
      close(device);
    }
    uffdio_api api{
        .api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM, .ioctls = 0};
    Must(ioctl(faults_, UFFDIO_API, &api), "UFFDIO_API");
    uffdio_register all{.range = {reinterpret_cast<uint64_t>(base_), kPages * kPage},
                        .mode = UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP,
                        .ioctls = 0};
    Must(ioctl(faults_, UFFDIO_REGISTER, &all), "UFFDIO_REGISTER");
    Must(pipe2(stop_, O_CLOEXEC), "pipe2");
  }

  void Handle() {
    pollfd ready[2] = {{faults_, POLLIN, 0}, {stop_[0], POLLIN, 0}};
    while (true) {
      poll(ready, 2, -1);
      if (ready[1].revents != 0) return;
      uffd_msg message;
      if (read(faults_, &message, sizeof(message)) == static_cast<ssize_t>(sizeof(message))) Resolve(message);
    }
  }

  void Resolve(const uffd_msg& message) const {
    const uffdio_range page{message.arg.pagefault.address & ~(kPage - 1), kPage};
    if ((message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0) {
      uffdio_writeprotect allow{.range = page, .mode = 0};
      Must(ioctl(faults_, UFFDIO_WRITEPROTECT, &allow), "UFFDIO_WRITEPROTECT");
    } else {
      uffdio_continue go{.range = page, .mode = kContinueProtected, .mapped = 0};
      Must(ioctl(faults_, UFFDIO_CONTINUE, &go), "UFFDIO_CONTINUE");
    }
  }

  char* base_ = nullptr;
  int faults_ = -1;
  int stop_[2] = {-1, -1};
  std::thread handler_;
};

// The median of access(page) for `count` accesses, each to a page that prepare() has made ready.
template <typename Prepare, typename Access>
double MedianOfRounds(uint64_t count, Prepare prepare, Access access) {
  std::vector<double> medians;
  for (uint64_t done = 0; done < count; done += kPages) {
    prepare();
    medians.push_back(MedianNs(std::min(kPages, count - done), access));
  }
  return Median(std::move(medians));
}

Verbs MakeVerbs() {
  auto mapping = std::make_shared<BareMapping>();
  return {{"minor",
           [mapping](const Arguments& a) {
             return MedianOfRounds(
                 a[0], [&] { mapping->Zap(); }, [&](uint64_t page) { mapping->Load(page); });
           }},
          {"write_protect", [mapping](const Arguments& a) {
             const auto protect = [&] {
               mapping->Zap();
               for (uint64_t page = 0; page < kPages; ++page) mapping->Load(page);
             };
             return MedianOfRounds(a[0], protect, [&](uint64_t page) { mapping->Store(page); });
           }}};
}

}  // namespace

FaultFloor::FaultFloor(int core) : worker_(std::make_unique<Worker>("bare faults", core, MakeVerbs)) {}
FaultFloor::~FaultFloor() = default;

}  // namespace mangrove::bench
