// A fileset in memory with one or two instances, and the model beside it: every operation is carried out by both, and what they answer
// is compared. Differences are failures of the test that is running, with the operations that came last.

#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fs/instance.h"
#include "tests/unit/fs/peer_pages.h"
#include "tests/unit/fs/posix_model.h"

namespace mangrove::fs {

class History {
 public:
  explicit History(size_t instances);

  MemoryPages& pages() { return pages_; }
  PosixModel& model() { return model_; }
  size_t instances() const { return instances_.size(); }
  Instance& instance(size_t i) { return *instances_[i]; }
  InodeNumber Number(FileId file) const { return numbers_.at(file).inode; }

  // By an instance and by the model. What the instance answered.
  Answer Do(Op op);
  // ENOSPC or EDQUOT of an instance is allowed: then the model does not do it, and the whole tree is compared.
  void AllowFull(bool allowed) { full_allowed_ = allowed; }
  // By an instance alone, as the next operation.
  Answer DoReal(const Op& op);

  // What is different between the tree and the model, names and attributes; empty if nothing is.
  std::string Difference(PosixModel& model);
  void Compare(const Op& op, const Answer& found);
  // The whole tree, with all content. Reading changes access times, in both.
  void ExpectSame();

  // The same, until the pages end (MemoryPages::EndAfter): then nullopt, and what the instance answered is in `last`; the model has not
  // done it.
  std::optional<Answer> DoUntilEnd(const Op& op, Answer* last);
  // The power goes and comes back, the instances are opened again, and finish what was left.
  void Restart();
  // Which of the models has what is there, without the bytes of regular files; `made`, of an operation that makes a file, finds its number.
  // The model is that one from now on. The failure if none has.
  void Choose(std::vector<PosixModel> models, const Op& made);
  // Nobody has anything open any more, and everything that was removed is gone.
  void CloseAll();
  // The check of the fileset finds nothing, and free pages of data are zeros where they should be (S2 of fs/space.h).
  void ExpectSound();
  // The last operations, for messages.
  std::string Trace() const;

 private:
  struct Known {
    InodeNumber inode;
    uint64_t generation = 0;
  };

  void OpenInstances(size_t count);
  void ExpectFreePagesAreZeros();
  void OnFull(Op op);
  void Learn(const Answer& model, const Answer& real);
  std::string DifferenceOf(const Op& op, const Answer& expected, const Answer& found);
  std::string DifferenceOf(const Attributes& expected, const Attributes& found) const;
  std::string DifferenceBelow(PosixModel& model, FileId directory);
  std::string DifferenceOfFile(PosixModel& model, FileId file);
  std::string DifferenceOfSought(const Op& op, const Answer& found);
  Answer Names(const Op& op);
  Answer Other(const Op& op);

  MemoryPages pages_;
  OpenFiles open_;
  std::vector<std::unique_ptr<PeerPages>> peers_;
  std::vector<std::unique_ptr<Instance>> instances_;
  std::map<FileId, Known> numbers_;
  PosixModel model_;
  bool full_allowed_ = false;
  int64_t now_ns_ = 1'000'000'000'000;
  uint64_t count_ = 0;
  std::deque<std::string> last_;
};

}  // namespace mangrove::fs
