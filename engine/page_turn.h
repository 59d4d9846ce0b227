// The bracket around everything that happens in one go: at the end of the outermost one the node's messages leave
// together, so that what belongs to one range and one node travels in one transport message.

#pragma once

#include <utility>

#include "engine/page_engine.h"

namespace mangrove {

class PageEngine::Turn {
 public:
  explicit Turn(PageEngine* engine) : engine_(engine) {
    if (++engine_->depth_ == 1) ++engine_->turns_;
  }
  ~Turn() {
    if (engine_->depth_ == 1) engine_->Pump();
    --engine_->depth_;
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  PageEngine* const engine_;
};

// A planted bug: the owner's frame is forgotten when it is sent.
inline bool DropsSentFrame(const PlantedBugs* bugs, const Message& grant) {
  return bugs && (bugs->drop_frame_at_send || (bugs->drop_frame_at_move && grant.access == Access::kMove));
}

// Runs event(cached), which steps the page's machine and appends to its effects, once the effects of earlier ones are out.
template <typename Event>
void PageEngine::WithPage(PageId page, Event event) {
  CachedPage& cached = Cached(page);
  if (cached.carrying) {
    WorkOf(cached).events.emplace_back(std::move(event));
    return;
  }
  Turn turn(this);
  LendRoom(cached);
  event(cached);
  Carry(page, cached);
}

}  // namespace mangrove
