// The RAM directory's pages, as this node reads and writes them, and its claims: what directory/ is given of the engine.

#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "directory/claims.h"
#include "directory/page_access.h"
#include "engine/directory_memory.h"

namespace mangrove {

class PageEngine;

class DirectoryPages final : public PageAccess {
 public:
  DirectoryPages(PageEngine* engine, DirectoryMemory* memory) : engine_(engine), memory_(memory) {}

  PageBuffer Peek(PageRef ref) override;
  Task<absl::StatusOr<PageBuffer>> Read(PageRef ref, TimeNs deadline) override;
  Task<absl::StatusOr<uint64_t>> Lock(PageRef ref, TimeNs deadline) override;
  PageBuffer LoadLocked(uint64_t lock) override;
  void StoreLocked(uint64_t lock, const PageBytes& content) override;
  void Unlock(uint64_t lock) override;
  Task<absl::StatusOr<PageRef>> Create(const PageBytes& content, TimeNs deadline) override;
  void Retire(PageRef ref) override;

 private:
  PageEngine* const engine_;
  DirectoryMemory* const memory_;
  std::map<uint64_t, PageId> locked_;  // By lock.
};

// A part of a node's claims about an interval, as it travels.
struct Claim {
  DirectoryEntry entry;
  // The node holds pages of the segments, which it got from that responsible node. Its successor has to know of them.
  bool holds = false;
};

// What all said, sorted and without overlap: who is responsible counts before who holds something, whatever the terms
// (directory/claims.h, C1), and then the latest term.
std::vector<DirectoryEntry> ResolveClaims(std::vector<Claim> claims);

constexpr size_t kClaimsPerPage = 100;
PageBuffer EncodeClaims(const std::vector<Claim>& claims);
// REQUIRES: count <= kClaimsPerPage. InvalidArgument: one is no run of segments, or of no node, or no term.
absl::StatusOr<std::vector<Claim>> DecodeClaims(const PageBytes& bytes, uint64_t count);
PageBuffer EncodeInterval(const PageInterval& interval);
absl::StatusOr<PageInterval> DecodeInterval(const PageBytes& bytes);

}  // namespace mangrove
