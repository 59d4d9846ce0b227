#include "recovery/codec_frame.h"

#include <capnp/serialize.h>
#include <kj/array.h>
#include <kj/exception.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "recovery/raft.h"

namespace mangrove {
namespace {

using capnp::word;

// The segment table, that of one segment: how many segments less one, and the words of the first.
constexpr size_t kTableWords = 1;

// Before the library sees anything.
absl::Status CheckFrame(std::string_view bytes, size_t most_bytes) {
  if (bytes.size() > most_bytes) return Bad(bytes.size(), " bytes, more than ", most_bytes);
  if (bytes.size() % sizeof(word) != 0) return Bad(bytes.size(), " bytes, not a multiple of ", sizeof(word));
  uint32_t table[2];
  if (bytes.size() <= sizeof(table)) return Bad(bytes.size(), " bytes, with nothing in them");
  std::memcpy(table, bytes.data(), sizeof(table));
  if (table[0] != 0) return Bad(uint64_t{table[0]} + 1, " segments instead of 1");
  const size_t words = bytes.size() / sizeof(word) - kTableWords;
  if (table[1] != words) return Bad(words, " words instead of the ", table[1], " that it says to have");
  return {};
}

absl::Status ReadFrame(std::string_view bytes, absl::FunctionRef<absl::Status(capnp::MessageReader&)> read) {
  // The library reads whole words, so they must lie where words may lie.
  kj::Array<word> aligned;
  const size_t words = bytes.size() / sizeof(word);
  const void* start = bytes.data();
  if (reinterpret_cast<uintptr_t>(start) % alignof(word) != 0) {
    aligned = kj::heapArray<word>(words);
    std::memcpy(aligned.begin(), start, bytes.size());
    start = aligned.begin();
  }
  capnp::ReaderOptions options;
  // Everything is read once. More than that is the same words in several places, which makes much out of little.
  options.traversalLimitInWords = words;
  options.nestingLimit = 8;
  capnp::FlatArrayMessageReader reader(kj::arrayPtr(static_cast<const word*>(start), words), options);
  return read(reader);
}

}  // namespace

// Built where there is room, then copied to where it fits.
std::string Frame(absl::FunctionRef<void(capnp::MessageBuilder&)> fill) {
  capnp::MallocMessageBuilder scratch;
  fill(scratch);
  const capnp::AnyStruct::Reader filled = scratch.getRoot<capnp::AnyStruct>().asReader();

  const size_t words = filled.totalSize().wordCount + 1;  // The root's pointer.
  const uint32_t table[2] = {0, static_cast<uint32_t>(words)};
  std::string bytes((kTableWords + words) * sizeof(word), '\0');
  std::memcpy(bytes.data(), table, sizeof(table));
  auto* segment = reinterpret_cast<word*>(bytes.data()) + kTableWords;
  capnp::FlatMessageBuilder builder(kj::arrayPtr(segment, words));
  builder.setRoot(filled);
  builder.requireFilled();
  return bytes;
}

absl::Status Unframe(const char* what, std::string_view bytes, size_t most_bytes,
                     absl::FunctionRef<absl::Status(capnp::MessageReader&)> read) {
  absl::Status status = CheckFrame(bytes, most_bytes);
  try {
    if (status.ok()) status = ReadFrame(bytes, read);
  } catch (const kj::Exception& e) {
    status = Bad(e.getDescription().cStr());
  } catch (const std::exception& e) {
    status = Bad(e.what());
  }
  if (!status.ok()) return Bad("bad ", what, ": ", status.message());
  return {};
}

absl::Status CheckTime(const char* what, TimeNs time) {
  if (time >= 0) return {};
  return Bad(what, " is of the time ", time, ", before the first");
}

absl::Status CheckVotes(NodeId node, uint32_t votes) {
  if (votes <= Raft::kMaxVotes) return {};
  return Bad(ToString(node), " has ", votes, " votes, more than ", Raft::kMaxVotes);
}

absl::Status CheckFollows(const char* what, NodeId before, NodeId node) {
  if (node > before) return {};
  if (node.value == 0) return Bad(what, " names node 0");
  if (node == before) return Bad(what, " names ", ToString(node), " twice");
  return Bad(what, " names ", ToString(node), " behind ", ToString(before));
}

absl::Status CheckDistinct(const char* what, std::vector<NodeId> nodes) {
  std::sort(nodes.begin(), nodes.end());
  NodeId before;
  for (NodeId node : nodes) {
    if (absl::Status s = CheckFollows(what, before, node); !s.ok()) return s;
    before = node;
  }
  return {};
}

}  // namespace mangrove
