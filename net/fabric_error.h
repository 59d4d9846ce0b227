// libfabric's error codes as absl::Status: the one place that knows what they mean.

#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace mangrove {

// `code` is what libfabric calls return (negative) or put into error entries (positive). The message reads
// "`what`: <libfabric's words> (<number>)". Unavailable: the peer is gone or not there (yet), in whatever words this
// provider has for it. ResourceExhausted: no memory, descriptors or queue entries. FailedPrecondition: the provider,
// device or address cannot do what is asked. Internal: anything else.
absl::Status FabricError(int code, std::string_view what);

}  // namespace mangrove
