// Changes of a view, and batches of pulses and of their answers, as messages.

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "recovery/codec.h"
#include "recovery/messages.capnp.h"
#include "tests/unit/recovery/codec_expect.h"

namespace mangrove {
namespace {

namespace wire = recovery_wire;

// --- Samples: every field differs from its default, and from the others -----------------------------------------------

ViewChange FullChange() {
  return {Epoch(11),
          {{NodeId(13), Incarnation(12)}, {NodeId(14), Incarnation(UINT64_MAX)}},
          {NodeId(16), NodeId(15)},
          {NodeId(14), NodeId(13)},
          {NodeId(18), NodeId(17)}};
}

// In no order, and both miss node 28.
PulseBatch FullPulses() {
  return {{{{NodeId(22), Incarnation(23)}, {INT64_MAX, Epoch(24), {NodeId(28), NodeId(27)}, true, false}},
           {{NodeId(21), Incarnation(UINT64_MAX)}, {29, Epoch(30), {NodeId(28)}, false, true}}}};
}

AnswerBatch FullAnswers() {
  return {Epoch(41),
          NodeId(42),
          {{{NodeId(44), Incarnation(45)}, INT64_MAX, true}, {{NodeId(43), Incarnation(UINT64_MAX)}, 46, true}}};
}

// --- Limits -----------------------------------------------------------------------------------------------------------

// `unreachable` nodes in all, as many of each pulse as it takes.
PulseBatch Pulses(size_t count, size_t unreachable) {
  PulseBatch batch;
  for (uint64_t i = 1; i <= count; ++i) {
    RelayedPulse& relayed = batch.pulses.emplace_back();
    relayed = {{NodeId(~i), Incarnation(~i)}, {INT64_MAX, Epoch(~i), {}}};
    for (; unreachable > 0 && relayed.pulse.unreachable.size() < Pulse::kMostUnreachable; --unreachable) {
      relayed.pulse.unreachable.emplace_back(~uint64_t{unreachable});
    }
  }
  return batch;
}

AnswerBatch Answers(size_t count) {
  AnswerBatch batch{Epoch(UINT64_MAX), NodeId(UINT64_MAX), {}};
  for (uint64_t i = 1; i <= count; ++i) batch.answers.push_back({{NodeId(~i), Incarnation(~i)}, INT64_MAX, true});
  return batch;
}

// Who joins has a blank disk.
ViewChange Change(size_t joins, size_t leaves, size_t caught_up = 0) {
  ViewChange change{Epoch(UINT64_MAX), {}, {}, {}, {}};
  for (uint64_t i = 1; i <= joins; ++i) {
    change.joins.push_back({NodeId(~i), Incarnation(~i)});
    change.blank.emplace_back(~i);
  }
  for (uint64_t i = 1; i <= leaves; ++i) change.leaves.emplace_back(i);
  for (uint64_t i = 1; i <= caught_up; ++i) change.caught_up.emplace_back(i << 32);
  return change;
}

// --- Round trips ------------------------------------------------------------------------------------------------------

TEST(RecoveryCodecBatch, MessagesWithAllFieldsAreReadBack) {
  ExpectReadBack(FullChange());
  ExpectReadBack(FullPulses());
  ExpectReadBack(FullAnswers());
}

TEST(RecoveryCodecBatch, MessagesOfDefaultsAreReadBack) {
  ExpectReadBack(PulseBatch());
  ExpectReadBack(AnswerBatch());
  ExpectReadBack(PulseBatch{{{{NodeId(1), Incarnation(1)}, Pulse()}}});
  ExpectReadBack(AnswerBatch{Epoch(), NodeId(), {{{NodeId(1), Incarnation(1)}, 0, false}}});
}

TEST(RecoveryCodecBatch, EachFieldOfAnAnswerAloneIsReadBack) {
  const NodeInstance node{NodeId(1), Incarnation(2)};
  ExpectReadBack(AnswerBatch{Epoch(3), NodeId(), {}});
  ExpectReadBack(AnswerBatch{Epoch(), NodeId(3), {}});
  ExpectReadBack(AnswerBatch{Epoch(), NodeId(), {{node, 3, false}}});
  ExpectReadBack(AnswerBatch{Epoch(), NodeId(), {{node, 0, true}}});
}

TEST(RecoveryCodecBatch, EachWordOfADiskAloneIsReadBack) {
  ExpectReadBack(Pulse{1, Epoch(2), {}, true, false});
  ExpectReadBack(Pulse{1, Epoch(2), {}, false, true});
}

TEST(RecoveryCodecBatch, JoinsAloneAndLeavesAloneAndWhoHasCaughtUpAloneAreReadBack) {
  ExpectReadBack(Change(0, 0, 1));
  ExpectReadBack(ViewChange{Epoch(3), {{NodeId(1), Incarnation(1)}}, {}, {}, {}});
  ExpectReadBack(Change(1, 0));
  ExpectReadBack(Change(0, 1));
}

// --- Sizes ------------------------------------------------------------------------------------------------------------

TEST(RecoveryCodecBatch, TheLargestFit) {
  ExpectFits(Change(ViewChange::kMostNodes, 0));
  ExpectFits(Change(0, ViewChange::kMostNodes));
  ExpectFits(Change(0, 0, ViewChange::kMostNodes));
  ExpectFits(Answers(AnswerBatch::kMostAnswers));
  ExpectFits(Pulses(PulseBatch::kMostPulses, PulseBatch::kMostUnreachable));
  PulseBatch even = Pulses(PulseBatch::kMostPulses, 0);  // Each with a list of its own.
  for (RelayedPulse& relayed : even.pulses) {
    for (uint64_t i = 1; i <= PulseBatch::kMostUnreachable / PulseBatch::kMostPulses; ++i) {
      relayed.pulse.unreachable.emplace_back(~i);
    }
  }
  ExpectFits(even);
}

TEST(RecoveryCodecBatch, WhatAReaderWouldRefuseIsABug) {
  for (const RecoveryMessage& message : std::vector<RecoveryMessage>{
           ViewChange(), Change(ViewChange::kMostNodes, 1), Change(ViewChange::kMostNodes, 0, 1),
           ViewChange{Epoch(1), {}, {NodeId(2)}, {NodeId(2)}, {}}, Pulses(PulseBatch::kMostPulses + 1, 0),
           Pulses(PulseBatch::kMostPulses, PulseBatch::kMostUnreachable + 1), Answers(AnswerBatch::kMostAnswers + 1),
           PulseBatch{{RelayedPulse()}}, AnswerBatch{Epoch(), NodeId(), {RelayedAnswer()}}}) {
    ExpectBug([&] { EncodeMessage(message); });
  }
}

// --- Refusals ---------------------------------------------------------------------------------------------------------

TEST(RecoveryCodecBatch, MissingContentIsRefused) {
  for (const auto& [message, text] :
       std::vector<std::pair<RecoveryMessage, std::string>>{{FullChange(), "a change of the view lacks fields"},
                                                            {FullPulses(), "PulseBatch lacks fields"},
                                                            {FullAnswers(), "AnswerBatch lacks fields"}}) {
    std::string bytes = EncodeMessage(message);
    std::memset(bytes.data() + 24, 0, 8);  // The only pointer of the message, behind its only word of data.
    ExpectRefused(DecodeText(bytes), text);
  }
  // What initPulses and initAnswers make has neither pulses nor nodes.
  ExpectMessageRefused(
      FullPulses(), [](wire::Message::Builder m) { m.getPulseBatch().initPulses(1); }, "RelayedPulse lacks fields");
  ExpectMessageRefused(
      FullPulses(), [](wire::Message::Builder m) { m.getPulseBatch().getPulses()[1].disownPulse(); },
      "Pulse lacks fields");
  ExpectMessageRefused(
      FullAnswers(), [](wire::Message::Builder m) { m.getAnswerBatch().initAnswers(1); }, "RelayedAnswer lacks fields");
}

// A list's tag tells how many words of data, and how many pointers, each of its structs has.
TEST(RecoveryCodecBatch, StructsInAListThatLackFieldsAreRefused) {
  const auto with_tag = [](const RecoveryMessage& message, uint64_t tag, uint64_t changed) {
    std::string bytes = EncodeMessage(message);
    const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&tag), sizeof(tag)));
    EXPECT_NE(at, std::string::npos);
    if (at != std::string::npos) std::memcpy(bytes.data() + at, &changed, sizeof(changed));
    return bytes;
  };
  const auto tag = [](uint64_t count, uint64_t words, uint64_t pointers) {
    return count << 2 | words << 32 | pointers << 48;
  };
  ExpectRefused(DecodeText(with_tag(FullPulses(), tag(2, 0, 2), tag(4, 0, 1))), "RelayedPulse lacks fields");
  ExpectRefused(DecodeText(with_tag(FullAnswers(), tag(2, 2, 1), tag(2, 3, 0))), "RelayedAnswer lacks fields");
  ExpectRefused(DecodeText(with_tag(FullAnswers(), tag(2, 2, 1), tag(3, 1, 1))), "RelayedAnswer lacks fields");
}

TEST(RecoveryCodecBatch, NegativeTimesAreRefused) {
  ExpectMessageRefused(
      FullPulses(), [](wire::Message::Builder m) { m.getPulseBatch().getPulses()[1].getPulse().setSentAtNs(-1); },
      "Pulse is of the time -1");
  ExpectMessageRefused(
      FullAnswers(), [](wire::Message::Builder m) { m.getAnswerBatch().getAnswers()[1].setLeaseFromNs(-2); },
      "RelayedAnswer is of the time -2");
}

TEST(RecoveryCodecBatch, ListsThatAreTooLongAreRefused) {
  ExpectMessageRefused(
      FullChange(), [](wire::Message::Builder m) { m.getViewChange().initLeaves(125); }, "of 129 nodes");
  ExpectMessageRefused(
      Change(0, 1), [](wire::Message::Builder m) { m.getViewChange().initLeaves(0); }, "of 0 nodes");
  ExpectMessageRefused(
      FullPulses(), [](wire::Message::Builder m) { m.getPulseBatch().initPulses(65); },
      "PulseBatch has 65 entries, more than 64");
  ExpectMessageRefused(
      FullPulses(), [](wire::Message::Builder m) { m.getPulseBatch().getPulses()[0].getPulse().initUnreachable(65); },
      "Pulse has 65 entries, more than 64");
  ExpectMessageRefused(
      FullAnswers(), [](wire::Message::Builder m) { m.getAnswerBatch().initAnswers(65); },
      "AnswerBatch has 65 entries, more than 64");
}

TEST(RecoveryCodecBatch, TooManyUnreachableNodesInAllAreRefused) {
  // Of the largest, one that names none yet names one.
  const auto one_more = [](wire::Message::Builder m) {
    m.getPulseBatch().getPulses()[63].getPulse().initUnreachable(1).set(0, 1);
  };
  ExpectMessageRefused(Pulses(PulseBatch::kMostPulses, PulseBatch::kMostUnreachable), one_more,
                       "PulseBatch has 513 unreachable nodes, more than 512");
}

TEST(RecoveryCodecBatch, NodesThatAreNoneOrTwiceThereAreRefused) {
  const auto from = [](uint64_t node, uint64_t incarnation) {
    return [=](wire::Message::Builder m) {
      auto instance = m.getPulseBatch().getPulses()[1].getFrom();
      instance.setNode(node);
      instance.setIncarnation(incarnation);
    };
  };
  ExpectMessageRefused(FullPulses(), from(0, 1), "PulseBatch names node 0");
  ExpectMessageRefused(FullPulses(), from(22, 99), "PulseBatch names node 22 twice");
  ExpectMessageRefused(FullPulses(), from(21, 0), "RelayedPulse names node 21 incarnation 0");
  const auto unreachable = [](uint64_t node) {
    return [=](wire::Message::Builder m) { m.getPulseBatch().getPulses()[0].getPulse().getUnreachable().set(1, node); };
  };
  ExpectMessageRefused(FullPulses(), unreachable(0), "Pulse names node 0");
  ExpectMessageRefused(FullPulses(), unreachable(28), "Pulse names node 28 twice");
  const auto to = [](uint64_t node, uint64_t incarnation) {
    return [=](wire::Message::Builder m) {
      auto instance = m.getAnswerBatch().getAnswers()[1].getTo();
      instance.setNode(node);
      instance.setIncarnation(incarnation);
    };
  };
  ExpectMessageRefused(FullAnswers(), to(0, 1), "AnswerBatch names node 0");
  ExpectMessageRefused(FullAnswers(), to(44, 99), "AnswerBatch names node 44 twice");
  ExpectMessageRefused(FullAnswers(), to(43, 0), "RelayedAnswer names node 43 incarnation 0");
  ExpectMessageRefused(
      FullChange(), [](wire::Message::Builder m) { m.getViewChange().getLeaves().set(0, 13); },
      "a change of the view names node 13 twice");
  ExpectMessageRefused(
      FullChange(), [](wire::Message::Builder m) { m.getViewChange().getJoins()[0].setIncarnation(0); },
      "a change of the view names node 13 incarnation 0");
}

}  // namespace
}  // namespace mangrove
