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
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), NodeId{});
  room.Note(kOne, {.free_pages = 10, .load = 5}, kNow);
  room.Note(kTwo, {.free_pages = 10, .load = 4}, kNow);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kTwo);
  room.Promise(kTwo);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kOne);
  room.Note(kTwo, {.free_pages = 11, .load = 90}, kNow);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kTwo);
}

TEST(PeerRoom, WhoIsNearHasPrecedenceWhereItsRoomIsEnough) {
  constexpr NodeId kNear{2};
  constexpr NodeId kNextGroup{70};
  constexpr NodeId kFar{64 * 64 + 1};
  PeerRoom room;
  room.Note(kFar, {.free_pages = 100 * PeerRoom::kEnough}, kNow);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kFar);
  room.Note(kNextGroup, {.free_pages = PeerRoom::kEnough}, kNow);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kNextGroup);
  room.Note(kNear, {.free_pages = PeerRoom::kEnough, .load = 1000}, kNow);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kNear);
  EXPECT_EQ(room.MostRoomNear(NodeId(71), kNow), kNextGroup);
  // It has too little left.
  room.Promise(kNear);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kNextGroup);
  room.Promise(kNextGroup);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kFar);
  room.Forget(kFar);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kNextGroup);  // Neither has enough, and both as much: who is loaded less.
}

TEST(PeerRoom, WhoHasNoRoomIsNotChosen) {
  PeerRoom room;
  room.Note(kOne, {.free_pages = 1}, kNow);
  room.Promise(kOne);
  room.Promise(kOne);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), NodeId{});
  room.Note(kOne, {.free_pages = 5}, kNow);
  EXPECT_EQ(room.MostRoomNear(kOne, kNow), kOne);
}

// Whatever it says meanwhile.
TEST(PeerRoom, WhoTookNothingIsNotChosenForAWhile) {
  PeerRoom room;
  TimeNs now = kNow;
  for (const DurationNs pause : {kSecond, 2 * kSecond, 4 * kSecond}) {
    room.Note(kOne, {.free_pages = 5}, now);
    room.Distrust(kOne, now);
    room.Note(kOne, {.free_pages = 5}, now);
    EXPECT_EQ(room.MostRoomNear(kOne, now + pause - 1), NodeId{});
    now += pause;
    room.Note(kOne, {.free_pages = 5}, now);
    EXPECT_EQ(room.MostRoomNear(kOne, now), kOne);
  }
  room.Trust(kOne);
  room.Distrust(kOne, now);
  EXPECT_EQ(room.MostRoomNear(kOne, now + kSecond), kOne);
}

TEST(PeerRoom, WhatWasSaidLongAgoDoesNotCount) {
  PeerRoom room;
  room.Note(kOne, {.free_pages = 1}, kNow);
  EXPECT_TRUE(room.Find(kOne, kNow + PeerRoom::kExpires - 1).has_value());
  EXPECT_FALSE(room.Find(kOne, kNow + PeerRoom::kExpires).has_value());
  EXPECT_EQ(room.MostRoomNear(kOne, kNow + PeerRoom::kExpires), NodeId{});
  room.Note(kOne, {.free_pages = 1}, kNow);
  room.Forget(kOne);
  EXPECT_FALSE(room.Find(kOne, kNow).has_value());
}

}  // namespace
}  // namespace mangrove
