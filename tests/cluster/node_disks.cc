#include "tests/cluster/node_disks.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace mangrove::cluster_test {
namespace {

constexpr char kOptions[] = "size=512m,mode=0700";

absl::Status Error(const std::string& what) { return absl::ErrnoToStatus(errno, what); }

}  // namespace

absl::StatusOr<std::unique_ptr<NodeDisks>> NodeDisks::Make(const std::string& cluster_directory, int nodes) {
  if (unshare(CLONE_NEWNS) != 0) return Error("unshare of the mounts");
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return Error("mount of / as private");
  std::unique_ptr<NodeDisks> disks(new NodeDisks(cluster_directory));
  for (int node = 1; node <= nodes; ++node) {
    const absl::Status mounted = disks->Mount(node);
    if (!mounted.ok()) return mounted;
  }
  return disks;
}

NodeDisks::~NodeDisks() {
  for (; mounted_ > 0; --mounted_) umount2(Of(mounted_).c_str(), MNT_DETACH);
}

std::string NodeDisks::Of(int node) const { return absl::StrCat(directory_, "/data-", node); }

absl::Status NodeDisks::Mount(int node) {
  const std::string path = Of(node);
  std::filesystem::create_directory(path);
  if (mount("tmpfs", path.c_str(), "tmpfs", 0, kOptions) != 0) return Error(absl::StrCat("mount of ", path));
  ++mounted_;
  // Nodes need it, and older kernels do not have it there.
  const int fd = open(Ballast(node).c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) return Error(absl::StrCat("open with O_DIRECT of ", Ballast(node)));
  close(fd);
  Free(node);
  return absl::OkStatus();
}

absl::Status NodeDisks::Resize(int node, int mib) const {
  const std::string options = absl::StrCat("size=", mib, "m");
  if (mount(nullptr, Of(node).c_str(), nullptr, MS_REMOUNT, options.c_str()) == 0) return absl::OkStatus();
  return Error(absl::StrCat("remount of ", Of(node)));
}

void NodeDisks::Fill(int node) const {
  const int fd = open(Ballast(node).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) throw std::runtime_error(Error(absl::StrCat("open of ", Ballast(node))).ToString());
  const std::string bytes(1 << 20, 'f');
  ssize_t wrote = 0;
  do {
    wrote = write(fd, bytes.data(), bytes.size());
  } while (wrote > 0);
  const absl::Status status = Error(absl::StrCat("write to ", Ballast(node)));
  close(fd);
  if (!absl::IsResourceExhausted(status)) throw std::runtime_error(status.ToString());
}

void NodeDisks::Free(int node) const { unlink(Ballast(node).c_str()); }

}  // namespace mangrove::cluster_test
