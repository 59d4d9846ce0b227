// Checks of filesets that were asked for on this node: they take longer than a question may, so they are asked about again and again.
//
// A question is a JSON object: "name" of the fileset, "repair" (false). The first one begins a check. The answer comes when the check has
// ended, or after half a second: then it has "running" true, and how far it is. A check that nobody asks about for 30 s is called off.
//
// Owned by the loop.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "fs/check.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class FileChecks {
 public:
  using Check = std::function<Task<absl::StatusOr<fs::CheckReport>>(std::string name, fs::CheckOptions options)>;

  // `clock` outlives it, and so does what `check` needs.
  FileChecks(Clock* clock, Check check) : clock_(clock), check_(std::move(check)) {}

  Task<absl::StatusOr<std::string>> Ask(std::string question);
  // Every check is called off.
  void Stop();
  // Until they have ended it must stay.
  size_t running() const { return running_; }

 private:
  struct Job {
    bool repair = false;
    fs::CheckProgress progress;
    std::unique_ptr<absl::StatusOr<fs::CheckReport>> result;
    TimeNs asked = 0;
  };

  Task<bool> Run(std::string name, std::shared_ptr<Job> job);
  Task<bool> Watch(std::string name, std::shared_ptr<Job> job);

  Clock* const clock_;
  const Check check_;
  std::map<std::string, std::shared_ptr<Job>> jobs_;
  size_t running_ = 0;
  bool stopped_ = false;
};

}  // namespace mangrove
