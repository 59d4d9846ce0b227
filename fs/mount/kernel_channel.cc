#include "fs/mount/kernel_channel.h"

#include <fcntl.h>
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
// FUSE_TMPFILE, of Linux 6.2 and later.
constexpr uint32_t kMakeUnnamed = 51;

// A request as it was read.
class Request {
 public:
  Request(void* bytes, ssize_t size) : bytes_(static_cast<std::byte*>(bytes)), size_(static_cast<size_t>(size)) {
    std::memcpy(&header_, bytes_, sizeof(header_));
  }
  const fuse_in_header& header() const { return header_; }
  // REQUIRES: Get gave one.
  template <typename T>
  void Put(const T& argument) {
    std::memcpy(bytes_ + sizeof(header_), &argument, sizeof(T));
  }
  size_t size() const { return size_; }
  void SetOpcode(uint32_t opcode) {
    header_.opcode = opcode;
    std::memcpy(bytes_, &header_, sizeof(header_));
  }
  // What is behind the header; false: it is not all there.
  template <typename T>
  bool Get(T* argument) const {
    if (size_ < sizeof(header_) + sizeof(T)) return false;
    std::memcpy(argument, bytes_ + sizeof(header_), sizeof(T));
    return true;
  }
  // Takes out `count` bytes of what is behind the header, from `at` on. REQUIRES: they are there.
  void Erase(size_t at, size_t count) {
    std::byte* const hole = bytes_ + sizeof(header_) + at;
    std::memmove(hole, hole + count, size_ - sizeof(header_) - at - count);
    size_ -= count;
    header_.len = static_cast<uint32_t>(size_);
    std::memcpy(bytes_, &header_, sizeof(header_));
  }

 private:
  std::byte* bytes_;
  size_t size_;
  fuse_in_header header_;
};

void NoteFirst(const Request& request, Mount::State* state) {
  fuse_init_in init;
  if (!request.Get(&init)) return;
  state->first_request = request.header().unique;
  state->can_map_direct_io = (init.flags & FUSE_INIT_EXT) != 0 && (init.flags2 & kMapsDirectIo) != 0;
  state->has_setxattr_flags = (init.flags & FUSE_SETXATTR_EXT) != 0;
}

void NoteWrite(const Request& request, Mount::State* state) {
  fuse_write_in write;
  if (request.Get(&write)) state->clears_set_id = (write.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
}

// libfuse takes the short form.
void NoteSetXattr(Request* request, Mount::State* state) {
  fuse_setxattr_in set;
  if (!state->has_setxattr_flags || !request->Get(&set)) return;
  state->clears_set_gid = (set.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0;
  request->Erase(FUSE_COMPAT_SETXATTR_IN_SIZE, sizeof(set) - FUSE_COMPAT_SETXATTR_IN_SIZE);
}

// By which data_operations.cc knows it. Not all that ask for such a file say so there: overlayfs does not.
void MakeCreation(Request* request) {
  fuse_create_in create;
  if (!request->Get(&create)) return;
  create.flags |= __O_TMPFILE;
  request->Put(create);
  request->SetOpcode(FUSE_CREATE);
}

ssize_t ReadRequest(int fd, void* buffer, size_t size, void* userdata) {
  const ssize_t bytes = read(fd, buffer, size);
  if (bytes < static_cast<ssize_t>(sizeof(fuse_in_header))) return bytes;
  auto* const state = static_cast<Mount::State*>(userdata);
  Request request(buffer, bytes);
  switch (request.header().opcode) {
    case FUSE_INIT: NoteFirst(request, state); break;
    case FUSE_WRITE: NoteWrite(request, state); break;
    case FUSE_SETXATTR: NoteSetXattr(&request, state); break;
    case kMakeUnnamed: MakeCreation(&request); break;
    default: break;
  }
  return static_cast<ssize_t>(request.size());
}

ssize_t WriteAnswer(int fd, iovec* parts, int count, void* userdata) {
  auto* const state = static_cast<Mount::State*>(userdata);
  if (state->first_request != 0 && count == 2 && parts[1].iov_len >= sizeof(fuse_init_out)) {
    const auto* const header = static_cast<const fuse_out_header*>(parts[0].iov_base);
    auto* const answer = static_cast<fuse_init_out*>(parts[1].iov_base);
    if (header->unique == state->first_request && header->error == 0) {
      if (state->can_map_direct_io) {
        answer->flags |= FUSE_INIT_EXT;
        answer->flags2 |= kMapsDirectIo;
        state->has_direct_io = true;
      }
      if (state->has_setxattr_flags) answer->flags |= FUSE_SETXATTR_EXT;
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
