// Who serves a role, by what a fileset's entry says and by the view.
// Covers: C14

#include "fs/roles.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "fs/pages.h"

namespace mangrove::fs {
namespace {

class Roles : public testing::Test {
 protected:
  Roles() {
    view_.epoch = Epoch(7);
    view_.members = {{NodeId(1), Incarnation(4)}, {NodeId(2), Incarnation(9)}};
  }

  void Put(NodeInstance node, uint64_t since) { PutHolder(entry_, Role::kRepair, RoleHolder{node, Epoch(since)}); }
  absl::StatusOr<std::optional<RoleHolder>> Ask() const {
    return WhoServes(Role::kRepair, HolderIn(entry_, Role::kRepair), view_);
  }
  void ExpectFree() const {
    const auto who = Ask();
    ASSERT_TRUE(who.ok()) << who.status();
    EXPECT_EQ(*who, std::nullopt);
  }

  View view_;
  std::string entry_ = std::string(kPageSize, '\0');
};

TEST_F(Roles, NobodyServesWhatWasNeverTaken) { ExpectFree(); }

TEST_F(Roles, WhoIsThereInTheLifeThatTookItServes) {
  Put({NodeId(2), Incarnation(9)}, 7);
  const auto who = Ask();
  ASSERT_TRUE(who.ok()) << who.status();
  EXPECT_EQ(*who, (RoleHolder{{NodeId(2), Incarnation(9)}, Epoch(7)}));
}

TEST_F(Roles, WhoHasLeftServesNothing) {
  Put({NodeId(3), Incarnation(1)}, 6);
  ExpectFree();
}

TEST_F(Roles, AnEarlierLifeServesNothing) {
  Put({NodeId(2), Incarnation(8)}, 6);
  ExpectFree();
}

// It may be of a node that joined in a view of which we are told in a moment.
TEST_F(Roles, AnOldViewDoesNotSayThatANodeIsGone) {
  Put({NodeId(3), Incarnation(1)}, 8);
  EXPECT_TRUE(absl::IsAborted(Ask().status())) << Ask().status();
}

TEST_F(Roles, WhatWasGivenUpIsFree) {
  Put({NodeId(2), Incarnation(9)}, 7);
  PutHolder(entry_, Role::kRepair, std::nullopt);
  ExpectFree();
  EXPECT_EQ(entry_, std::string(kPageSize, '\0'));
}

TEST_F(Roles, ALargeNumberIsKeptWhole) {
  view_.epoch = Epoch(UINT64_MAX);
  view_.members[NodeId(UINT64_MAX - 1)] = Incarnation(UINT64_MAX);
  Put({NodeId(UINT64_MAX - 1), Incarnation(UINT64_MAX)}, UINT64_MAX);
  const auto who = Ask();
  ASSERT_TRUE(who.ok()) << who.status();
  EXPECT_EQ(*who, (RoleHolder{{NodeId(UINT64_MAX - 1), Incarnation(UINT64_MAX)}, Epoch(UINT64_MAX)}));
}

}  // namespace
}  // namespace mangrove::fs
