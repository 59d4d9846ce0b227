// The part of the codec that is about views (codec_view.cc), for the other (codec.cc).

#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "recovery/codec_log.h"
#include "recovery/messages.h"

namespace mangrove {

void FillIds(capnp::List<uint64_t>::Builder out, const std::vector<NodeId>& nodes);
void FillInstance(recovery_wire::Instance::Builder out, NodeInstance instance);
absl::Status ReadInstance(const char* what, recovery_wire::Instance::Reader in, NodeInstance& instance);

void FillViewNodes(capnp::List<recovery_wire::ViewNode>::Builder out, const std::vector<ViewPart::Node>& nodes);
// Of the view of `epoch`.
absl::Status ReadViewNodes(const char* what, capnp::List<recovery_wire::ViewNode>::Reader in, size_t most, Epoch epoch,
                           std::vector<ViewPart::Node>& nodes);
void FillViewPart(recovery_wire::ViewPart::Builder out, const ViewPart& part);
absl::Status ReadViewPart(recovery_wire::ViewPart::Reader in, ViewPart& part);
void FillViewChange(recovery_wire::ViewChange::Builder out, const ViewChange& change);
absl::Status ReadViewChange(recovery_wire::ViewChange::Reader in, ViewChange& change);

}  // namespace mangrove
