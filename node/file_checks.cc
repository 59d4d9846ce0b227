#include "node/file_checks.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/status.h"

namespace mangrove {
namespace {

constexpr DurationNs kWait = 500 * kMillisecond;
constexpr DurationNs kLookAgain = 10 * kMillisecond;
constexpr DurationNs kForgotten = 30 * kSecond;

nlohmann::json DocumentOf(const std::string& name, const fs::CheckReport& report) {
  return {{"name", name},
          {"running", false},
          {"directories", report.directories},
          {"files", report.files},
          {"others", report.others},
          {"streams", report.streams},
          {"orphans", report.orphans},
          {"metadata_pages", report.metadata_pages},
          {"data_pages", report.data_pages},
          {"unjudged", report.unjudged},
          {"problems", report.problems},
          {"unlisted_problems", report.unlisted_problems},
          {"repairs", report.repairs},
          {"unlisted_repairs", report.unlisted_repairs}};
}

nlohmann::json DocumentOf(const std::string& name, const fs::CheckProgress& progress) {
  return {
      {"name", name}, {"running", true}, {"doing", progress.doing}, {"done", progress.done}, {"total", progress.total}};
}

}  // namespace

Task<absl::StatusOr<std::string>> FileChecks::Ask(std::string question) {
  const nlohmann::json asked = nlohmann::json::parse(question, nullptr, false);
  if (!asked.is_object() || !asked.contains("name") || !asked["name"].is_string()) {
    co_return absl::InvalidArgumentError(absl::StrCat("\"", question, "\" is no question about a fileset's check"));
  }
  const std::string name = asked["name"].get<std::string>();
  const bool repair = asked.contains("repair") && asked["repair"] == true;
  if (stopped_) co_return absl::UnavailableError("this node is shutting down");
  if (!jobs_.contains(name)) {
    auto begun = std::make_shared<Job>();
    begun->repair = repair;
    begun->asked = clock_->Now();
    jobs_[name] = begun;
    running_ += 2;
    Spawn<bool>(Run(name, begun), [this](bool) { --running_; });
    Spawn<bool>(Watch(name, begun), [this](bool) { --running_; });
  }
  const std::shared_ptr<Job> job = jobs_[name];
  if (job->repair != repair) {
    co_return absl::FailedPreconditionError(absl::StrCat(
        "a check of fileset \"", name, "\" ", job->repair ? "with" : "without", " --repair is under way on this node"));
  }
  const TimeNs until = clock_->Now() + kWait;
  while (job->result == nullptr && clock_->Now() < until) co_await SleepUntil(clock_, clock_->Now() + kLookAgain);
  job->asked = clock_->Now();
  if (job->result == nullptr) co_return DocumentOf(name, job->progress).dump(2) + "\n";
  if (const auto it = jobs_.find(name); it != jobs_.end() && it->second == job) jobs_.erase(it);
  if (!job->result->ok()) co_return job->result->status();
  co_return DocumentOf(name, **job->result).dump(2) + "\n";
}

Task<bool> FileChecks::Run(std::string name, std::shared_ptr<Job> job) {
  fs::CheckOptions options;
  options.repair = job->repair;
  options.progress = &job->progress;
  absl::StatusOr<fs::CheckReport> report = co_await check_(name, options);
  job->result = std::make_unique<absl::StatusOr<fs::CheckReport>>(std::move(report));
  co_return true;
}

// Until somebody has had the answer, or nobody wants it.
Task<bool> FileChecks::Watch(std::string name, std::shared_ptr<Job> job) {
  const auto is_kept = [&] {
    const auto it = jobs_.find(name);
    return it != jobs_.end() && it->second == job;
  };
  while (is_kept()) {
    co_await SleepUntil(clock_, clock_->Now() + kLookAgain);
    if (stopped_ || clock_->Now() - job->asked > kForgotten) {
      job->progress.is_cancelled = true;
      if (job->result != nullptr && is_kept()) jobs_.erase(name);
    }
  }
  co_return true;
}

void FileChecks::Stop() { stopped_ = true; }

}  // namespace mangrove
