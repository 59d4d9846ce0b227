// Requests to other nodes that are answered once: sent again until the answer is there or the deadline has passed.

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {

// The outcome is the answer, or the request itself with a status of Unavailable.
Outcome<Message> PageEngine::StartCall(NodeId to, Message message, TimeNs deadline, DurationNs resend_after) {
  Turn turn(this);
  const TimeNs now = clock_->Now();
  message.request = NextRequest();
  Outcome<Message> outcome(clock_);
  if (stopped_) {
    message.SetStatus(stopped_status_);
    outcome.Set(std::move(message));
    return outcome;
  }
  calls_.emplace(message.request, Call{outcome, message, to, deadline, now + resend_after, resend_after});
  Post(to, std::move(message));
  ArmTick();
  return outcome;
}

void PageEngine::Answer(const Message& message) {
  const auto it = calls_.find(message.request);
  if (it == calls_.end()) {
    ++counters_.stale_messages;
  } else if (it->second.message.kind == MessageKind::kDropCopies && message.code == absl::StatusCode::kUnavailable) {
    it->second.trouble = message.text;  // Not yet: it is asked again.
  } else {
    EndCall(message);
  }
}

void PageEngine::EndCall(const Message& answer) {
  const auto it = calls_.find(answer.request);
  Outcome<Message> outcome = it->second.outcome;
  calls_.erase(it);
  outcome.Set(answer);
}

void PageEngine::TickCalls() {
  const TimeNs now = clock_->Now();
  std::vector<RequestId> over;
  for (auto& [request, call] : calls_) {
    if (call.deadline <= now) {
      over.push_back(request);
    } else if (call.resend_at <= now) {
      call.resend_after = std::min<DurationNs>(2 * call.resend_after, kSecond);
      call.resend_at = now + call.resend_after;
      ++counters_.resends;
      Post(call.to, call.message);
    }
  }
  for (RequestId request : over) {
    const Call& call = calls_.at(request);
    Message answer = call.message;
    answer.data = nullptr;
    answer.SetStatus(absl::UnavailableError(
        call.trouble.empty() ? absl::StrCat(ToString(call.to), " does not answer (", Name(call.message.kind),
                                            " of page ", ToString(call.message.page), "); start it, or try again later")
                             : call.trouble));
    EndCall(answer);
  }
}

// The same request to every one of `nodes`; the first error.
Task<absl::Status> PageEngine::CallAll(std::vector<NodeId> nodes, Message message, TimeNs deadline) {
  std::vector<Outcome<Message>> outcomes;
  {
    Turn turn(this);
    for (NodeId node : nodes) outcomes.push_back(StartCall(node, message, deadline, 5 * options_.resend_after));
  }
  absl::Status first;
  for (Outcome<Message>& outcome : outcomes) {
    const Message answer = co_await outcome.Get();
    if (first.ok()) first = answer.status();
  }
  co_return first;
}

void PageEngine::AnswerInspect(const Message& message, NodeInstance from) {
  if (!inspector_) return;
  const std::string document = inspector_(message.page);
  CHECK(document.size() < kPageBytes);
  auto page = std::make_shared<PageBytes>();
  std::memcpy(page->bytes.data(), document.data(), document.size());
  Message answer;
  answer.kind = MessageKind::kInspected;
  answer.page = message.page;
  answer.request = message.request;
  answer.data = std::move(page);
  Post(from.node, std::move(answer));
}

Task<absl::StatusOr<std::string>> PageEngine::InspectAt(NodeId node, PageId page, TimeNs deadline) {
  Message ask;
  ask.kind = MessageKind::kInspect;
  ask.page = page;
  Outcome<Message> outcome = StartCall(node, std::move(ask), deadline, 5 * options_.resend_after);
  const Message answer = co_await outcome.Get();
  if (!answer.status().ok()) co_return answer.status();
  if (answer.data == nullptr) co_return absl::InternalError(absl::StrCat(ToString(node), " sent no document"));
  const auto* text = reinterpret_cast<const char*>(answer.data->bytes.data());
  co_return std::string(text, strnlen(text, kPageBytes));
}

}  // namespace mangrove
