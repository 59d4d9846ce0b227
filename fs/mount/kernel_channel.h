// The session's words with the kernel, as they pass: what libfuse 3.14 does not know to ask for in the first exchange is added to it, and a file
// without a name (O_TMPFILE) is asked for as others are.

#pragma once

#include "fs/mount/session.h"

namespace mangrove::fs {

// From then on the session reads and writes its descriptor by this. ENOMEM.
// What libfuse does not say: whether a write is one of somebody who may not keep set-id bits, in State::clears_set_id; whether an ACL is set by
// somebody who may not give files the set-group-id bit of that group, in State::clears_set_gid.
// Where the kernel lets files with direct I/O be mapped (Linux 6.6 and later), State::has_direct_io is set before the first of them is opened.
absl::Status UseKernelChannel(Mount::State* state);

}  // namespace mangrove::fs
