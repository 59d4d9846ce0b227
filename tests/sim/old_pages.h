// What a node had in RAM when it was expelled, for its next life: the mistake of `keep_old_pages`. A node that starts has nothing,
// and a daemon that starts anew inside its process has its frames removed before: what others did meanwhile they did without these copies.

#pragma once

#include <map>

#include "directory/cache_machine.h"
#include "engine/page_engine.h"
#include "tests/sim/sim_memory.h"

namespace mangrove {

class OldPages {
 public:
  // Copies that nothing happens to. REQUIRES: the node's memory is not dead yet.
  void Take(PageEngine& engine, sim::SimMemory& memory);
  // As if they had been there all the time: so the engine names them to whoever takes their segments over. Nothing is left here.
  void GiveBack(PageEngine& engine);

 private:
  struct Old {
    CacheState state = CacheState::kInvalid;
    Version version;
    Version flushed;
    Epoch grant_epoch;
    ConfigNumber config;
    uint32_t replicas = 0;
    PageBuffer data;
  };
  std::map<PageId, Old> pages_;
};

}  // namespace mangrove
