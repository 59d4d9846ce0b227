// The bracket around everything that happens in one go: at the end of the outermost one the node's messages leave
// together, so that what belongs to one range and one node travels in one transport message.

#pragma once

#include "engine/page_engine.h"

namespace mangrove {

class PageEngine::Turn {
 public:
  explicit Turn(PageEngine* engine) : engine_(engine) { ++engine_->depth_; }
  ~Turn() {
    if (engine_->depth_ == 1) engine_->Pump();
    --engine_->depth_;
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  PageEngine* const engine_;
};

}  // namespace mangrove
