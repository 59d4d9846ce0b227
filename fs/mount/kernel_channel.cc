#include "fs/mount/kernel_channel.h"

#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "fs/status.h"

namespace mangrove::fs {
namespace {

// FUSE_DIRECT_IO_ALLOW_MMAP, bit 36 of the flags.
constexpr uint32_t kMapsDirectIo = uint32_t{1} << 4;

ssize_t ReadRequest(int fd, void* buffer, size_t size, void* userdata) {
  const ssize_t bytes = read(fd, buffer, size);
  fuse_in_header header;
  fuse_init_in init;
  fuse_write_in write;
  if (bytes < static_cast<ssize_t>(sizeof(header) + sizeof(write))) return bytes;
  std::memcpy(&header, buffer, sizeof(header));
  if (header.opcode == FUSE_WRITE) {
    std::memcpy(&write, static_cast<const std::byte*>(buffer) + sizeof(header), sizeof(write));
    static_cast<Mount::State*>(userdata)->clears_set_id = (write.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
  }
  if (header.opcode != FUSE_INIT || bytes < static_cast<ssize_t>(sizeof(header) + sizeof(init))) return bytes;
  std::memcpy(&init, static_cast<const std::byte*>(buffer) + sizeof(header), sizeof(init));
  if ((init.flags & FUSE_INIT_EXT) != 0 && (init.flags2 & kMapsDirectIo) != 0) {
    static_cast<Mount::State*>(userdata)->first_request = header.unique;
  }
  return bytes;
}

ssize_t WriteAnswer(int fd, iovec* parts, int count, void* userdata) {
  auto* const state = static_cast<Mount::State*>(userdata);
  if (state->first_request != 0 && count == 2 && parts[1].iov_len >= sizeof(fuse_init_out)) {
    const auto* const header = static_cast<const fuse_out_header*>(parts[0].iov_base);
    auto* const answer = static_cast<fuse_init_out*>(parts[1].iov_base);
    if (header->unique == state->first_request && header->error == 0) {
      answer->flags |= FUSE_INIT_EXT;
      answer->flags2 |= kMapsDirectIo;
      state->has_direct_io = true;
      state->first_request = 0;
    }
  }
  return writev(fd, parts, count);
}

}  // namespace

absl::Status UseKernelChannel(Mount::State* state) {
  const fuse_custom_io channel{
      .writev = WriteAnswer, .read = ReadRequest, .splice_receive = nullptr, .splice_send = nullptr};
  const int error = fuse_session_custom_io(state->session, &channel, fuse_session_fd(state->session));
  return error == 0 ? absl::OkStatus() : PosixError(-error, "the FUSE session's channel cannot be set");
}

}  // namespace mangrove::fs
