// What the kernel may keep of a mount's files, and for how long: names, attributes and bytes, about which it asks nobody then.
//
// It is bound to the copies of inodes' pages that this node has. A file's page changes with its attributes and with every write, a directory's
// with every name in it: who changes one takes the page from all other nodes first, and here it leaves only when the kernel has nothing
// any more of what it had been told by it. So a change is seen by all from its end on, and who is alone with a file asks nobody.
//
//   K1  Attributes are told with a time only if their page is here in that very step, and nothing has left or changed since they were looked
//       for; and for half of the time for which this node may use its pages without hearing from others. So what a daemon that stands
//       still has told is over before others go on without it, even if the kernel takes as long again to take it in.
//   K2  Attributes of a file that somebody may write to by this mount are told for no time. So the kernel has nothing of it to write back, and
//       drops the attributes without waiting for anybody: a page that leaves waits for no lock of the kernel's.
//   K3  Where the kernel asks whether bytes that it keeps are right, it is answered when those from before a change are dropped. That waits for
//       reads that are under way, so it is done beside the loop; but where nobody has the file open there are none.
//       Nobody asks for what is mapped, or spliced (sendfile): such bytes are of before for as long as the drop takes.
//   K4  What this node's own transactions change the kernel is told to drop before they are answered, and for a moment nothing is told anew: it
//       does not know of all of it, and what it knows it counts down by itself only when its caller goes on.
//   K5  With a second mount of a fileset on one node both keep nothing: neither would see the other's changes as pages that leave.
//
//   K6  Names, also that there is none, are told for a fifth of a second at most. Nothing drops them: so the directory's page waits until the kernel cannot
//       have them any more, wherever it has put them, of an answer that it may have taken in late; and where others change a directory, none
//       are told for some time, the longer the more often that was so.
//
// They cannot be dropped, since: all names of a mount at once, without a lock (FUSE_NOTIFY_INC_EPOCH), are dropped together with what is mounted
// on them, and where somebody works; a single one takes the lock of its directory, and who has that may wait for the page; and an answer
// about a name, unlike one about attributes, is taken in also behind a drop.
//
// Pure but for the kernel, which it reaches by KernelCache::Kernel. Owned by the loop.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "directory/planted_bugs.h"
#include "fs/mount/known_files.h"
#include "fs/page_copies.h"
#include "net/runtime/clock.h"

namespace mangrove::fs {

class KernelCache final : public PageCopies::Keeper {
 public:
  class Kernel {
   public:
    virtual ~Kernel() = default;
    // False: the kernel does not know the file: not yet, an answer is on its way, or not any more.
    virtual bool DropAttributes(uint64_t number) = 0;
    // Of a file that nobody has open.
    virtual void DropBytes(uint64_t number) = 0;
    // The same of any file. `done(dropped)`: on the loop, later.
    virtual void DropBytesBesideReads(uint64_t number, std::function<void(bool dropped)> done) = 0;
  };

  // When an answer began to be looked for.
  struct Mark {
    uint64_t left = 0;
    uint64_t changed = 0;
    friend bool operator==(const Mark&, const Mark&) = default;
  };

  // So long after it was told a name the kernel may use it, at most.
  static constexpr DurationNs kNamesLast = 600 * kMillisecond;
  // So long after others waited for a directory's names none are told, at first.
  static constexpr DurationNs kContended = 10 * kSecond;

  // `known`: what the kernel was told of. All outlive it.
  KernelCache(const KnownFiles* known, Kernel* kernel, const PlantedBugs* bugs = &kNoPlantedBugs,
              DurationNs contended = kContended)
      : known_(known), kernel_(kernel), bugs_(bugs), contended_(contended) {}
  ~KernelCache() override;

  // Until then, and without `copies`, the kernel keeps nothing. Both outlive the cache, or its Stop. Once. `keeps_bytes`: they can be dropped.
  void Begin(Clock* clock, PageCopies* copies, bool keeps_bytes);
  // For good: bytes are dropped before each read of who had been told that it may keep some.
  void KeepNothing();
  // The mount ends: the kernel keeps nothing, and no page waits for it any more.
  void Stop();

  Mark Now() const { return {left_, changed_}; }
  // How long the kernel may keep a file's attributes, which an answer of this step says. `is_alone`: they are on its own page, all of them.
  DurationNs TellAttributes(uint64_t number, bool is_alone, Mark mark);
  // The same of names in a directory, or of there being none.
  DurationNs TellNames(uint64_t directory, Mark mark);
  // A name is moved there, by this mount: the kernel keeps it as long as before. Meanwhile it is told none.
  void BeginMove(uint64_t from, uint64_t to);
  void EndMove() { --moves_; }
  // Before an ACL is looked for: the kernel keeps it until its attributes are dropped or have run out.
  void TellAcl(uint64_t number);

  // A file is opened, in the step that answers it. True: the kernel may keep bytes that are read so. Otherwise it drops what it has, in the
  // opener's name.
  bool Open(uint64_t number, bool may_write);
  // `may_keep`: what Open said.
  void Close(uint64_t number, bool may_write, bool may_keep);
  // Bytes are asked for by somebody whose Open gave `may_keep`. Of others the kernel may keep them for a mapping.
  void Read(uint64_t number, bool may_keep);
  // Calls `then` when the kernel has no bytes from before now that may not be used; at once, mostly, and after 10 s in any case.
  void WhenBytesAreRight(uint64_t number, std::function<void()> then);
  // Bytes were changed by this mount. Before it is answered.
  void Wrote(uint64_t number);
  // The kernel has forgotten it.
  void Forget(uint64_t number);

  // PageCopies::Keeper
  void OnLeaving(uint64_t page, std::function<void()> go) override;
  void OnChanged(uint64_t page) override;
  void OnOther() override { KeepNothing(); }  // K5

 private:
  // B1  Bytes that are wrong of a file that is open are being dropped.
  enum class Bytes : uint8_t { kRight, kWrong, kDropping, kWrongAgain };
  struct Kept {
    bool attributes = false;  // It was told some, with a time, or is asking for its ACL.
    TimeNs changed_at = 0;    // By this node.
    TimeNs names_until = 0;   // Of a directory: the kernel may have some.
    TimeNs left_at = 0;       // The page.
    DurationNs untold = 0;    // So long after that no names are told: the longer the more often that was waited for.
    bool is_of_streams = false;
    Bytes bytes = Bytes::kRight;
    bool has_bytes = false;                      // It may have some, of after the last drop that was begun.
    bool has_others = false;                     // It may have some that nobody looked after.
    uint32_t handles = 0;                        // By which it is open,
    uint32_t writers = 0;                        // of these may write,
    uint32_t keepers = 0;                        // and of these have the kernel keep bytes.
    std::vector<std::function<void()>> leaving;  // Pages that wait for the kernel to take an answer in.
    TimeNs asks_until = 0;                       // No longer than until then.
    std::vector<std::shared_ptr<std::function<void()>>> waiting;  // Until bytes are right; null: it was called.
  };

  bool IsOn() const { return copies_ != nullptr && !is_off_; }
  // False: the kernel may take in an answer yet.
  bool Drop(uint64_t number, Kept* kept);
  void AskUntilDropped(uint64_t number, Kept* kept);
  void AskAgain(uint64_t number);
  void LetGo(Kept* kept);
  void GoWithoutNames(TimeNs then, std::function<void()> go);
  void Doubt(uint64_t number, Kept* kept);
  // B1, and whether they are right.
  bool Settle(uint64_t number, Kept* kept);
  void OnDropped(uint64_t number, bool dropped);

  const KnownFiles* const known_;
  Kernel* const kernel_;
  const PlantedBugs* const bugs_;
  const DurationNs contended_;
  Clock* clock_ = nullptr;
  PageCopies* copies_ = nullptr;
  bool keeps_bytes_ = false;
  bool is_off_ = false;   // KeepNothing.
  uint64_t left_ = 0;     // Pages have left so often,
  uint64_t changed_ = 0;  // and transactions of this node have changed one, inodes alone.
  std::map<uint64_t, std::function<void()>>
      names_end_;  // Pages that wait for that, by the order in which they began to.
  uint64_t last_end_ = 0;
  int moves_ = 0;                             // Under way.
  DurationNs longest_ = 0;                    // That was told.
  absl::flat_hash_map<uint64_t, Kept> kept_;  // By the kernel's numbers.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace mangrove::fs
