// What the kernel may keep of a mount's files, and for how long: names, attributes and bytes, about which it asks nobody then.
//
// It is bound to the copies of pages that this node has. A directory's page changes with every name in it, a file's with its attributes and
// with every write: who changes one takes the page from all other nodes first, and here it leaves only when the kernel has dropped what it had
// been told by it. So a change is seen by all from its end on, and who is alone with a file asks nobody.
//
//   K1  Names and attributes are told with a time only if their page is here in that very step, and nothing has left or changed since they were
//       looked for; and for half of the time for which this node may use its pages without hearing from others. So what a daemon that stands
//       still has told is over before others go on without it, even if the kernel takes as long again to take it in.
//   K2  Attributes of a file that somebody may write to by this mount are told for no time. So the kernel has nothing of it to write back, and
//       drops the attributes without waiting for anybody: a page that leaves waits for no lock of the kernel's.
//   K3  Where the kernel asks whether bytes that it keeps are right, it is answered when those from before a change are dropped; also who opens
//       the file. That waits for reads that are under way, so it is done beside the loop; but where nobody has the file open there are none.
//       Nobody asks for what is mapped, or spliced (sendfile): such bytes are of before for as long as the drop takes.
//   K4  What this node's own transactions change the kernel is told to drop before they are answered: it does not know of all of it, nor does
//       it mark what it knows so that older answers do not come behind it.
//   K5  With a second mount of a fileset on one node both keep nothing: neither would see the other's changes as pages that leave.
//
// It needs Linux 6.16 or later, where all names can be dropped without a lock; with an older one the kernel keeps nothing.
// Pure but for the kernel, which it reaches by KernelCache::Kernel. Owned by the loop.

#pragma once

#include <cstdint>
#include <functional>
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
    // All of them. False: this kernel cannot.
    virtual bool DropNames() = 0;
    // Of a file that nobody has open.
    virtual void DropBytes(uint64_t number) = 0;
    // The same of any file. `done`: on the loop, later.
    virtual void DropBytesBesideReads(uint64_t number, std::function<void()> done) = 0;
    // Whether the latter can be had; it stays so.
    virtual bool CanDropBytes() const = 0;
  };

  // When an answer began to be looked for.
  struct Mark {
    uint64_t left = 0;
    uint64_t changed = 0;
    friend bool operator==(const Mark&, const Mark&) = default;
  };

  // `known`: what the kernel was told of. All outlive it.
  KernelCache(const KnownFiles* known, Kernel* kernel, const PlantedBugs* bugs = &kNoPlantedBugs)
      : known_(known), kernel_(kernel), bugs_(bugs) {}
  ~KernelCache() override;

  // Until then, and without `copies`, the kernel keeps nothing. Both outlive the cache, or its Stop. Once.
  void Begin(Clock* clock, PageCopies* copies);
  // The mount ends: the kernel keeps nothing, and no page waits for it any more.
  void Stop();

  Mark Now() const { return {left_, changed_}; }
  // Of what a transaction of this node has made since, and no other one has changed.
  Mark OfMade(Mark begun) const { return begun.left == left_ && changed_ <= begun.changed + 1 ? Now() : begun; }
  // How long the kernel may keep what an answer of this step says: the names of a directory, or that it has none,
  DurationNs TellNames(uint64_t directory, Mark mark);
  // the same of a listing with attributes, which the kernel takes in as of later: for a moment alone, and until that is over names stay,
  DurationNs TellListedNames(uint64_t directory, Mark mark);
  // and the attributes of a file. `is_alone`: they are on its own page, all of them.
  DurationNs TellAttributes(uint64_t number, bool is_alone, Mark mark);
  // Before it is answered: names are not where they were, or may be there though an error says otherwise.
  void DropNames();

  // Before an ACL is looked for: the kernel keeps it until its attributes are dropped or have run out.
  void TellAcl(uint64_t number);

  // A file is opened, in the step that answers it. True: the kernel may keep bytes that are read so.
  bool Open(uint64_t number, bool may_write);
  // `may_keep`: what Open said.
  void Close(uint64_t number, bool may_write, bool may_keep);
  // Bytes are asked for by somebody whose Open gave `may_keep`. Of others the kernel may keep them for a mapping.
  void Read(uint64_t number, bool may_keep);
  // Calls `then` when the kernel has no bytes from before now that may not be used; at once, mostly.
  void WhenBytesAreRight(uint64_t number, std::function<void()> then);
  // Bytes were changed by this mount. Before it is answered.
  void Wrote(uint64_t number);
  // The kernel has forgotten it.
  void Forget(uint64_t number);

  // PageCopies::Keeper
  void OnLeaving(uint64_t page, std::function<void()> go) override;
  void OnChanged(uint64_t page) override;
  void OnOther() override;

 private:
  struct Kept {
    bool attributes = false;     // It was told some, with a time, or is asking for its ACL,
    uint64_t names_told_in = 0;  // and names; of now, if all were dropped so often.
    TimeNs listed_until = 0;
    bool is_alone = false;    // Its page says everything about it.
    bool has_bytes = false;   // It may have some, of after the last drop that was begun.
    bool has_others = false;  // It may have some that nobody looked after.
    bool is_dropping = false;
    uint64_t doubts = 0;                         // Changes since which bytes may be of before,
    uint64_t dropped = 0;                        // and how many of them a drop has seen to.
    uint32_t handles = 0;                        // By which it is open,
    uint32_t writers = 0;                        // of these may write,
    uint32_t keepers = 0;                        // and of these have the kernel keep bytes.
    std::vector<std::function<void()>> leaving;  // Pages that wait for the kernel to take an answer in.
    TimeNs asks_until = 0;                       // No longer than until then.
    std::vector<std::pair<uint64_t, std::function<void()>>> waiting;  // Until so many doubts are seen to.
  };

  bool IsOn();
  DurationNs TimeToTell(uint64_t number, Mark mark);
  // False: the kernel may take in an answer yet.
  bool Drop(uint64_t number, Kept* kept);
  void AskUntilDropped(uint64_t number, Kept* kept);
  void AskAgain(uint64_t number);
  void LetGo(Kept* kept);
  void Doubt(uint64_t number, Kept* kept);
  bool AreBytesRight(uint64_t number, Kept* kept);
  void DropBytesBesideReads(uint64_t number, Kept* kept);
  void DropAll();

  const KnownFiles* const known_;
  Kernel* const kernel_;
  const PlantedBugs* const bugs_;
  Clock* clock_ = nullptr;
  PageCopies* copies_ = nullptr;
  bool is_shared_ = false;      // Or was: K5.
  bool can_drop_names_ = true;  // As far as is known.
  bool has_tried_names_ = false;
  uint64_t names_dropped_ = 1;                // How often.
  uint64_t left_ = 0;                         // Pages have left so often,
  uint64_t changed_ = 0;                      // and transactions of this node have changed one, inodes alone.
  DurationNs longest_ = 0;                    // That was told.
  absl::flat_hash_map<uint64_t, Kept> kept_;  // By the kernel's numbers.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace mangrove::fs
