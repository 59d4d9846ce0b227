// What weights disks are to have, by how much of them pages may take: in coarse steps, and so that the fullest one fills as late as it
// can. For the leader alone, which makes a view of it (view_keeper.h, K8): others need not come to the same. Pure.

#pragma once

#include <cstdint>
#include <map>

#include "net/ids.h"
#include "recovery/view.h"

namespace mangrove {

// What pages may take of each disk, or take, in MiB. The former is never 0.
using DiskRooms = std::map<NodeId, uint32_t>;

// The largest disk has the full weight, and others the step that is nearest to their part of it; one of less than a sixteenth has more
// than its part. Those that have not the full one, as in View::weights.
DiskWeights WeightsFor(const DiskRooms& rooms);

// Of a disk that comes to others with weights: the step that is nearest to theirs by its room. The full one if it has more.
uint8_t WeightBeside(const DiskRooms& rooms, const DiskWeights& weights, uint32_t room_mib);

// Of all disks the most that one is asked for beside its part of the whole room, in thousandths: 2000 where the first disk is full while
// the room is half full.
uint64_t MostAskedOf(const DiskRooms& rooms, const DiskWeights& weights);

// Whether each disk has room for what comes to it where weights go from `now` to `then`, beside what it has: what it loses it keeps
// until everything has moved. With room to spare, for this is an estimate, of as many copies of a page as there are; disks may be of
// several groups (directory/locator.h).
bool Fit(const DiskRooms& rooms, const DiskRooms& used, const DiskWeights& now, const DiskWeights& then);

// Whether so much more fits with other weights that pages should move for it.
bool AreWorthAMove(const DiskRooms& rooms, const DiskWeights& now, const DiskWeights& then);

}  // namespace mangrove
