// Neighbouring pages that are alike: one step of a machine does for all of them.
//
// A run of messages is one Message with `repeat`: its pages lie side by side, and what numbers there are (txn, request) count
// up with them. Machines compare numbers of a page with each other only, so entries and messages that differ by how far
// their pages are apart make the same step, and what comes out of it differs by as much again. So the first page's entry
// is stepped, and the others get its outcome.

#pragma once

#include <cstdint>

#include "directory/cache_machine.h"
#include "directory/messages.h"
#include "directory/responsible_machine.h"

namespace mangrove {

// Makes of a message, of its first page, that of the page `pages` behind it.
void MoveOn(Message& message, uint64_t pages);
void MoveOn(CacheEffect& effect, uint64_t pages);

// Of a run: the messages from the `first` on, `count` of them.
Message PartOf(const Message& run, uint64_t first, uint64_t count);

// The data of the message for the page `pages` behind the first. REQUIRES: run.data.
PageBuffer DataOf(const Message& run, uint64_t pages);

// Whether `next` is what `message` would be `pages` pages behind, in the same segment, data apart: a run stands for both.
bool GoesOn(const Message& message, const Message& next, uint64_t pages);

// Kinds that are taken as runs: by a machine, or by a core holder and who has asked it. Others are taken apart.
bool MayBeARun(const Message& message);

// Whether a step of `entry` is one of `other`, `pages` pages behind, as well: a step with `message` (null: of a local event),
// whose numbers are those of `entry`'s page.
bool AreAlike(const CacheEntry& entry, const CacheEntry& other, uint64_t pages, const Message* message, TimeNs now);
bool AreAlike(const HomeEntry& entry, const HomeEntry& other, uint64_t pages);

// Whether an entry may be the first of a run, or another of it, in a step with `message`.
bool MayBeOfARun(const CacheEntry& entry, const Message* message);
bool MayBeOfARun(const HomeEntry& entry);

// Gives `other` what the step made of `before`. REQUIRES: AreAlike before it.
void TakeStep(const CacheEntry& before, const CacheEntry& after, uint64_t pages, CacheEntry& other);
void TakeStep(const HomeEntry& after, uint64_t pages, HomePool& pool, HomeEntry& other);

}  // namespace mangrove
