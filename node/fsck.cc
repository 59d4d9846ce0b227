#include "node/fsck.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "node/render.h"

namespace mangrove {
namespace {

int Fail(const CommandEnvironment& environment, const absl::Status& status) {
  environment.err << "mangrove: " << status.message() << "\n";
  return kFsckFailed;
}

// One line, which the next one replaces.
void ShowProgress(const nlohmann::json& document, const CommandEnvironment& environment) {
  if (*environment.clear_screen == '\0') return;
  environment.err << "\r\x1b[K" << document.value("doing", "") << ": " << document.value("done", uint64_t{0}) << " of "
                  << document.value("total", uint64_t{0}) << std::flush;
}

}  // namespace

int RunFsck(const std::string& fileset, FsckOptions options, const AttachOptions& attach,
            const CommandEnvironment& environment) {
  const std::string question = nlohmann::json{{"name", fileset}, {"repair", options.repair}}.dump();
  for (;;) {
    const absl::StatusOr<std::string> answer = environment.inspect(attach, "fs fileset check", question);
    if (!answer.ok()) return Fail(environment, answer.status());
    const nlohmann::json document = nlohmann::json::parse(*answer, nullptr, false);
    if (!document.is_object()) return Fail(environment, absl::DataLossError("the daemon's answer is no JSON object"));
    if (document.value("running", false)) {
      ShowProgress(document, environment);
      continue;
    }
    if (*environment.clear_screen != '\0') environment.err << "\r\x1b[K" << std::flush;
    const absl::StatusOr<std::string> text = RenderCheck(*answer);
    if (!text.ok()) return Fail(environment, text.status());
    environment.out << (options.json ? *answer : *text);
    if (!document.at("problems").empty()) return kFsckProblems;
    return document.at("repairs").empty() ? kFsckSound : kFsckRepaired;
  }
}

}  // namespace mangrove
