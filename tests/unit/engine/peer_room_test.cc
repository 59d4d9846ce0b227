// Covers: G13

#include "engine/peer_room.h"

#include <gtest/gtest.h>

namespace mangrove {
namespace {

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr TimeNs kNow = kSecond;

TEST(PeerRoom, MostRoomThenLeastLoad) {
  PeerRoom room;
  EXPECT_EQ(room.MostRoom(kNow), NodeId{});
  room.Note(kOne, {.free_pages = 10, .load = 5}, kNow);
  room.Note(kTwo, {.free_pages = 10, .load = 4}, kNow);
  EXPECT_EQ(room.MostRoom(kNow), kTwo);
  room.Promise(kTwo);
  EXPECT_EQ(room.MostRoom(kNow), kOne);
  room.Note(kTwo, {.free_pages = 11, .load = 90}, kNow);
  EXPECT_EQ(room.MostRoom(kNow), kTwo);
}

TEST(PeerRoom, WhoHasNoRoomIsNotChosen) {
  PeerRoom room;
  room.Note(kOne, {.free_pages = 1}, kNow);
  room.Promise(kOne);
  room.Promise(kOne);
  EXPECT_EQ(room.MostRoom(kNow), NodeId{});
  room.Note(kOne, {.free_pages = 5}, kNow);
  EXPECT_EQ(room.MostRoom(kNow), kOne);
}

// Whatever it says meanwhile.
TEST(PeerRoom, WhoTookNothingIsNotChosenForAWhile) {
  PeerRoom room;
  TimeNs now = kNow;
  for (const DurationNs pause : {kSecond, 2 * kSecond, 4 * kSecond}) {
    room.Note(kOne, {.free_pages = 5}, now);
    room.Distrust(kOne, now);
    room.Note(kOne, {.free_pages = 5}, now);
    EXPECT_EQ(room.MostRoom(now + pause - 1), NodeId{});
    now += pause;
    room.Note(kOne, {.free_pages = 5}, now);
    EXPECT_EQ(room.MostRoom(now), kOne);
  }
  room.Trust(kOne);
  room.Distrust(kOne, now);
  EXPECT_EQ(room.MostRoom(now + kSecond), kOne);
}

TEST(PeerRoom, WhatWasSaidLongAgoDoesNotCount) {
  PeerRoom room;
  room.Note(kOne, {.free_pages = 1}, kNow);
  EXPECT_TRUE(room.Find(kOne, kNow + PeerRoom::kExpires - 1).has_value());
  EXPECT_FALSE(room.Find(kOne, kNow + PeerRoom::kExpires).has_value());
  EXPECT_EQ(room.MostRoom(kNow + PeerRoom::kExpires), NodeId{});
  room.Note(kOne, {.free_pages = 1}, kNow);
  room.Forget(kOne);
  EXPECT_FALSE(room.Find(kOne, kNow).has_value());
}

}  // namespace
}  // namespace mangrove
