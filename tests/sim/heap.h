// What is allocated in this process, as its allocator counts it.

#pragma once

#include <malloc.h>

#include <cstddef>

namespace mangrove::sim {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kHeapIsCounted = false;  // Its allocator is not the one that is asked.
#else
constexpr bool kHeapIsCounted = true;
#endif

inline size_t HeapInUse() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

}  // namespace mangrove::sim
