// What programs do with files, timed: the same on every filesystem that it is asked of.
//
// Each function works in a directory of its own below `parent`, makes what it needs before its time begins, and leaves nothing behind.
// Names are looked up in the directory's descriptor, so a name is one step. Nothing is synced unless it is said.

#pragma once

#include <cstdint>
#include <string>

namespace mangrove::bench {

// A directory below `parent`, and everything in it, as long as this object is there.
class WorkDirectory {
 public:
  explicit WorkDirectory(const std::string& parent);
  // The same directory as `other`, below another parent, where it is not removed.
  WorkDirectory(const std::string& parent, const WorkDirectory& other);
  ~WorkDirectory();
  WorkDirectory(const WorkDirectory&) = delete;
  WorkDirectory& operator=(const WorkDirectory&) = delete;

  int fd() const { return fd_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
  bool is_ours_ = true;
};

// `count` times, of files and directories by turns of their names; operations per second.
double CreateRate(const std::string& parent, uint64_t count);         // An empty file: open and close.
double CreateSmallRate(const std::string& parent, uint64_t count);    // A file of 1 KiB: open, write and close.
double OpenReadCloseRate(const std::string& parent, uint64_t count);  // Of 1 KiB.
double StatRate(const std::string& parent, uint64_t count);           // In random order.
double StatWarmRate(const std::string& parent, uint64_t count);       // The same again and again.
double RenameRate(const std::string& parent, uint64_t count);         // In a directory.
double UnlinkRate(const std::string& parent, uint64_t count);         // Of empty files.
double MakeDirectoryRate(const std::string& parent, uint64_t count);

// In a file of 16 MiB, at random places; operations per second.
double ReadPageRate(const std::string& parent, uint64_t count);
double ReadPageWarmRate(const std::string& parent,
                        uint64_t count);  // Which was read before, by who does not write to it.
double WritePageRate(const std::string& parent, uint64_t count);
// Of a write and an fsync; the median, in us.
double WritePageAndSyncUs(const std::string& parent, uint64_t count);

// `mib` times 1 MiB, in order; MiB per second. The file is written anew, over what it had.
double ReadMibRate(const std::string& parent, uint64_t mib);
double WriteMibRate(const std::string& parent, uint64_t mib);
// With an fsync behind each.
double WriteMibAndSyncRate(const std::string& parent, uint64_t mib);

// A file of `mib` MiB in the directory, over what it had, durable when it returns.
void WriteLarge(int directory, uint64_t mib);
// The same one is read in order, a MiB at a time; MiB per second.
double ReadLargeRate(int directory, uint64_t mib);

// Empty files "f0" and so on.
void MakeFiles(int directory, uint64_t count);
// Everything is listed, and each name asked for its attributes at once, as `ls -l` does, in ms. Ends the process if it is not `expected` names.
double ListMs(int directory, uint64_t expected);

}  // namespace mangrove::bench
