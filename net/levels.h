// What each part of a node speaks with its like on other nodes, as numbered levels: so that nodes of different builds form
// one cluster while it is upgraded, node by node. docs/OPERATIONS.md says how.
//
//  L1  A level says everything of what a subsystem says: whoever changes a message raises the subsystem's `high`, goes on
//      speaking the level before, and asks Transport::LevelOf before it sends. `low` is raised a release later.
//  L2  A connection uses, for each subsystem, the highest level that both sides speak; where there is none it is refused.
//  L3  Level 0 is to know nothing of a subsystem. So a subsystem that is new begins as 0 to 1, and nobody is refused for it.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace mangrove {

// On the wire: numbers keep their meaning.
enum class Subsystem : uint8_t {
  kNet = 0,         // Envelope, slots, sealing: net/.
  kPages = 1,       // Channel::kPages: directory/messages.capnp.
  kMembership = 2,  // Channel::kMembership: recovery/messages.capnp.
  kStore = 3,       // What core holders say of their disks, within the messages about pages.
};
constexpr size_t kSubsystems = 4;
// What a handshake has room for; the rest is 0.
constexpr size_t kLevelPlaces = 7;

struct LevelRange {
  uint8_t low = 0;
  uint8_t high = 0;
  friend bool operator==(const LevelRange&, const LevelRange&) = default;
};
using LevelTable = std::array<LevelRange, kLevelPlaces>;  // By the subsystem's number.
using Levels = std::array<uint8_t, kLevelPlaces>;

// What this build speaks.
constexpr LevelTable kOwnLevels = {{{1, 2}, {1, 2}, {1, 4}, {1, 1}}};

// "pages"; "subsystem 6" for one that this build does not know.
std::string NameOfSubsystem(size_t number);
std::optional<Subsystem> SubsystemOf(std::string_view name);

// L2. FailedPrecondition: names the first subsystem without a common level, and both ranges.
absl::StatusOr<Levels> CommonLevels(const LevelTable& own, const LevelTable& theirs);

}  // namespace mangrove
