// What comes in and what goes out: messages to the part of the engine that they are for, and into as few of the transport's as
// possible.

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/codec.h"
#include "directory/page_run.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/log.h"

namespace mangrove {
namespace {

// How long an acknowledgement waits for another message to the same node: no more than the hold time.
constexpr DurationNs kLateSend = 100 * kMicrosecond;

}  // namespace

void PageEngine::Post(NodeId to, Message message) {
  if (to.value == 0) return;  // Nobody is known to be responsible: it is found out.
  if (to == options_.self.node) {
    local_.push_back(std::move(message));
    return;
  }
  Outbox& outbox = outboxes_[to];
  if (message.data != nullptr) outbox.pages += message.repeat;
  outbox.messages.push_back(std::move(message));
  outbox.leaves = true;
  // Of many pages the receiver has some to work on while this node is at the others.
  if (outbox.pages >= kMaxMessagePages && !stopped_) SendOutbox(to, outbox);
}

// With the next message to that node, or after kLateSend.
void PageEngine::PostLate(NodeId to, Message message) {
  if (to == options_.self.node) return Post(to, std::move(message));
  outboxes_[to].messages.push_back(std::move(message));
  if (late_send_ != 0) return;
  late_send_ = clock_->CallAt(clock_->Now() + kLateSend, [this, alive = alive_] {
    if (!*alive) return;
    late_send_ = 0;
    Turn turn(this);
    for (auto& [node, outbox] : outboxes_) outbox.leaves = !outbox.messages.empty();
  });
}

void PageEngine::Broadcast(Message message) {
  for (const auto& [node, incarnation] : view_.members) Post(node, message);
}

// The end of a turn: what this node told itself is handled, what it tells others is sent.
void PageEngine::Pump() {
  while (!local_.empty()) {
    const Message message = std::move(local_.front());
    local_.pop_front();
    Dispatch(message, options_.self);
  }
  FlushOutboxes();
}

void PageEngine::FlushOutboxes() {
  if (stopped_) {
    outboxes_.clear();  // The transport may be gone.
    return;
  }
  for (auto& [node, outbox] : outboxes_) {
    if (outbox.leaves) SendOutbox(node, outbox);
  }
  if (late_send_ == 0) return;
  if (std::any_of(outboxes_.begin(), outboxes_.end(), [](const auto& o) { return !o.second.messages.empty(); })) return;
  clock_->Cancel(std::exchange(late_send_, 0));
}

void PageEngine::SendOutbox(NodeId to, Outbox& outbox) {
  if (peer_eviction_.HasNewsFor(to)) outbox.messages.push_back(peer_eviction_.NewsFor(to));
  Encode(outbox.messages,
         [&](const Packet& packet) { transport_->Send(to, Channel::kPages, packet.bytes, packet.pages); });
  outbox.messages.clear();
  outbox.leaves = false;
  outbox.pages = 0;
}

bool PageEngine::IsCurrent(NodeInstance node) const { return view_.Has(node); }

void PageEngine::OnDelivery(const Delivery& delivery) {
  if (stopped_) return;
  const bool is_of_this_view = delivery.epoch == view_.epoch || options_.bugs->mix_views;
  if (!HasLeaseNow() || !is_of_this_view || !view_.Has(delivery.from)) {  // V1, V4
    ++counters_.stale_messages;
    return;
  }
  ++counters_.messages_taken;
  Turn turn(this);
  const absl::Status sound = DecodeEach(delivery.message, delivery.pages, [&](const Message& message) {
    if (const absl::Status sense = CheckSense(message); !sense.ok()) {
      RefuseMessage(delivery.from, sense);
    } else {
      Dispatch(message, delivery.from);
    }
  });
  if (!sound.ok()) RefuseMessage(delivery.from, sound);
}

// What the codec, which knows no cluster, cannot check. From here on a message may be stale, but not impossible.
absl::Status PageEngine::CheckSense(const Message& message) const {
  const NodeId peer = message.peer.node;
  if (peer.value != 0 && !IsMember(peer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad message: ", Name(message.kind), " names ", ToString(peer), ", which is no member"));
  }
  const bool raises = message.kind == MessageKind::kRegisterEnd || message.kind == MessageKind::kClaims ||
                      message.kind == MessageKind::kHandedOver;
  const Epoch view = raises ? std::max(ViewOf(message.txn), ViewOf(message.grant_epoch)) : Epoch();
  if (view > view_.epoch) {
    return absl::InvalidArgumentError(absl::StrCat("bad message: ", Name(message.kind), " with numbers of view ",
                                                   view.value, ", which is still to come"));
  }
  return absl::OkStatus();
}

void PageEngine::RefuseMessage(NodeInstance from, const absl::Status& why) {
  ++counters_.bad_messages;
  said_once_.Log(LogLevel::kError, ToString(from),
                 absl::StrCat(ToString(from), " sent what cannot be read: ", why.message()));
}

void PageEngine::Dispatch(const Message& message, NodeInstance from) {
  if (message.repeat > 1) return DispatchRun(message, from);
  switch (message.kind) {
    case MessageKind::kRegisterRequest: SendHoldings(message, from); return;
    case MessageKind::kRegister:
    case MessageKind::kRegisterEnd: CountHoldings(message, from); return;
    case MessageKind::kDelayed: {
      CachedPage* cached = FindCached(message.page);
      if (cached != nullptr && cached->entry.request == message.request) {
        cached->entry.delayed_by = message.peer.node;
      }
      return;
    }
    case MessageKind::kFlush:
      if (message.peer.node.value != 0) {
        FlushForOther(message);
      } else {
        DispatchHome(message, from);
      }
      return;
    case MessageKind::kStored: StoresAnswered(message); return;
    case MessageKind::kFlushed:
    case MessageKind::kStoredInfo:
    case MessageKind::kDone:
    case MessageKind::kExtentInfo:
    case MessageKind::kClaims:
    case MessageKind::kHandedOver:
    case MessageKind::kStoredList:
    case MessageKind::kInspected: Answer(message); return;
    case MessageKind::kListStored: catch_up_.AnswerList(message, from); return;
    case MessageKind::kInspect: AnswerInspect(message, from); return;
    case MessageKind::kStore:
    case MessageKind::kQueryStored:
    case MessageKind::kPutExtent:
    case MessageKind::kDropExtent: AskCoreHolder(message, from); return;
    case MessageKind::kQueryExtent: AnswerExtent(message, from); return;
    case MessageKind::kDropCopies: DropCopies(message, from); return;
    case MessageKind::kNotResponsible: NotResponsible(message, from); return;
    case MessageKind::kClaimRequest: AnswerClaims(message, from); return;
    case MessageKind::kRetire: Retire(message); return;
    case MessageKind::kMoveOffer: OfferedSegment(message, from); return;
    case MessageKind::kHandOver: HandOver(message, from); return;
    case MessageKind::kMoved: Moved(message, from); return;
    case MessageKind::kResources: peer_eviction_.HearResources(message, from); return;
    case MessageKind::kOffer: peer_eviction_.HearOffer(message, from); return;
    case MessageKind::kDeclined: peer_eviction_.HearDeclined(message, from); return;
    case MessageKind::kReverted:
    case MessageKind::kLost: RaiseEvent(message, from); return;
    case MessageKind::kWentBack: HearWentBack(message, from); return;
    default:
      if (IsForCache(message.kind)) {
        CacheMessage(message, from);
      } else {
        DispatchHome(message, from);
      }
  }
}

void PageEngine::DispatchRun(const Message& run, NodeInstance from) {
  if (run.kind == MessageKind::kStore || run.kind == MessageKind::kQueryStored) return AskCoreHolder(run, from);
  if (run.kind == MessageKind::kStored) return StoresAnswered(run);
  IsForCache(run.kind) ? CacheRun(run, from) : HomeRun(run, from);
}

// What is allocated anew is fresh again. A message that was doubled, or comes late, says nothing new.
void PageEngine::NoteAllocated(PageRange range, ConfigNumber config) {
  auto it = core_.extents().upper_bound(range.first.value);
  if (it != core_.extents().begin() && std::prev(it)->second.range.Overlaps(range)) --it;
  for (; it != core_.extents().end() && it->second.range.first < range.end(); ++it) {
    if (config <= it->second.config) return;
  }
  auto told = told_fresh_.upper_bound(range.first.value);
  if (told != told_fresh_.begin() && std::prev(told)->second.range.Overlaps(range)) --told;
  while (told != told_fresh_.end() && told->second.range.Overlaps(range)) told = told_fresh_.erase(told);
}

void PageEngine::AskCoreHolder(const Message& message, NodeInstance from) {
  auto reply = [this, to = from.node, alive = alive_](Message answer) {
    if (*alive) PostAnswer(to, std::move(answer));
  };
  const PageRange range{message.page, message.count};
  if (message.kind == MessageKind::kPutExtent && IsDiscarded(range, message.config)) {
    Message answer;
    answer.kind = MessageKind::kDone;
    answer.page = message.page;
    answer.count = message.count;
    answer.request = message.request;
    answer.SetStatus(absl::FailedPreconditionError(absl::StrCat(ToString(range), " was unallocated meanwhile")));
    reply(std::move(answer));
    return;
  }
  if (message.kind == MessageKind::kDropExtent && !TouchesSystemPages(range)) {
    NoteDiscarded(range, message.config);
    catch_up_.NoteDrop(range, message.config);
  }
  if (message.kind == MessageKind::kPutExtent && !message.complete) NoteAllocated(range, message.config);
  // Until this disk has learned what it is to keep, it cannot refuse what it does not know. The asker asks again.
  if (!catch_up_.KnowsExtents()) {
    if (message.kind == MessageKind::kQueryStored || message.kind == MessageKind::kStore) {
      return TakeWhatIsKnown(message, reply);
    }
  }
  AskOwnDisk(message, reply);
  ArmSealTimer();
}

// What is not kept here any more, is being deleted: it was asked for under an earlier view.
void PageEngine::AskOwnDisk(const Message& message, CoreHolder::Reply reply) {
  if (message.kind != MessageKind::kQueryStored) return core_.Handle(message, std::move(reply));
  core_.Handle(message, [this, reply = std::move(reply), alive = alive_](Message answer) {
    if (!*alive) return;
    const NodeId self = options_.self.node;
    if (answer.status().ok() && !answer.is_volatile && !disks_.Stores(self, answer.page, answer.replicas)) {
      answer.SetStatus(absl::UnavailableError(
          absl::StrCat(ToString(self), " does not keep page ", ToString(answer.page), " any more")));
    }
    reply(std::move(answer));
  });
}

void PageEngine::TakeWhatIsKnown(const Message& run, const CoreHolder::Reply& reply) {
  for (uint64_t i = 0; i < run.repeat; ++i) {
    const Extent* const extent = core_.Find(run.page + i);
    if (extent == nullptr || (run.kind == MessageKind::kStore && extent->config != run.config)) continue;
    AskOwnDisk(PartOf(run, i, 1), reply);
  }
  ArmSealTimer();
}

// What one commit has made durable is answered in one message: its callbacks come one after the other.
void PageEngine::PostAnswer(NodeId to, Message answer) {
  answers_.emplace_back(to, std::move(answer));
  if (answers_.size() > 1) return;
  clock_->CallSoon([this, alive = alive_] {
    if (!*alive) return;
    Turn turn(this);
    for (auto& [node, message] : std::exchange(answers_, {})) Post(node, std::move(message));
  });
}

void PageEngine::DispatchHome(const Message& message, NodeInstance from) {
  if (IsResponsibleFor(message.page)) {
    HomeMessage(message, from);
  } else if (IsFixed(message.page)) {
    ++counters_.stale_messages;
  } else {
    Unsure(message, from);
  }
}

void PageEngine::RaiseEvent(const Message& message, NodeInstance from) {
  // Whoever says it may have been responsible then, though this node is now: unless it always is.
  const bool always = IsFixed(message.page) && IsResponsibleFor(message.page);
  if (always && from != options_.self) return RefuseMessage(message, from.node);
  if (!event_sink_) return;
  // Each page of it is remembered: no more than anybody has reason to tell of at once.
  event_sink_({.kind = message.kind == MessageKind::kLost ? RegionEvent::Kind::kLost : RegionEvent::Kind::kReverted,
               .range = {message.page, std::clamp<uint64_t>(message.count, 1, kSegmentPages)}});
}

}  // namespace mangrove
