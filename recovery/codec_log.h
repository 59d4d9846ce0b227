// The part of the codec that is about the log (codec_log.cc), for the other (codec.cc). Of our own sources this header alone
// includes what is generated from recovery/messages.capnp, and those of the codec include it.

#pragma once

#include "absl/status/status.h"
#include "recovery/messages.capnp.h"
#include "recovery/raft.h"

namespace mangrove {

// A RaftMessage in the Message that it is the content of.
void FillRaft(recovery_wire::Raft::Builder out, const RaftMessage& m);
absl::Status ReadRaft(recovery_wire::Raft::Reader in, RaftMessage& m);

}  // namespace mangrove
