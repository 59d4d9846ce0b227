#include "node/mounts.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "fs/status.h"
#include "net/log.h"

namespace mangrove {
namespace {

// Of embedded programs and the engine itself are lower, of attached ones higher numbers.
constexpr ClientId kFirstClient = ClientId{1} << 24;
constexpr char kPrefix[] = "fs ";
constexpr DurationNs kLookAgain = 10 * kMillisecond;

nlohmann::json DocumentOf(const fs::FilesetInfo& info) {
  return {{"name", info.name},
          {"state", fs::ToString(info.state)},
          {"replicas", info.replicas},
          {"number", info.number},
          {"made_ns", info.made_ns}};
}

std::string Done(const nlohmann::json& document) { return document.dump(2) + "\n"; }

absl::StatusOr<nlohmann::json> Parse(const std::string& argument) {
  nlohmann::json parsed = nlohmann::json::parse(argument, nullptr, false);
  if (parsed.is_object()) return parsed;
  return absl::InvalidArgumentError(absl::StrCat("\"", argument, "\" is no JSON object"));
}

// What the name of an errno means to a program, in the words of absl.
absl::Status Plain(const absl::Status& status) { return absl::Status(status.code(), status.message()); }

void RunOn(Loop* loop, absl::FunctionRef<void()> task) {
  Completion done;
  loop->RunUntil(
      [&] {
        task();
        done.Set();
      },
      done);
}

}  // namespace

struct Mounts::Entry {
  std::unique_ptr<fs::OpenFileset> fileset;
  std::unique_ptr<fs::Mount> mount;
};

Mounts::Mounts(Node* node) : node_(node), next_client_(kFirstClient) {
  NodeOperations* const operations = node->operations();
  fs::EnginePagesNode engine;
  engine.engine = node->engine();
  engine.transactions = operations->transactions();
  engine.clock = node->loop();
  engine.entropy = &entropy_;
  engine.self = node->config().self().id;
  engine.incarnation = entropy_.Next() | 1;
  engine.wall_ns = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  };
  engine.allocate = [operations](PageRange pages, AllocateOptions options, TimeNs deadline) {
    return operations->Allocate({.uid = 0, .gid = 0, .groups = {}}, pages, options, deadline);
  };
  engine.space = [operations](TimeNs deadline) { return operations->Space(deadline); };
  super_root_ = std::make_unique<fs::SuperRoot>(engine, operations, [this] { return next_client_++; });
  node->SetFilesystemOperations([this](Credentials who, std::string what, std::string argument) {
    return Operate(std::move(who), std::move(what), std::move(argument));
  });
}

Mounts::~Mounts() {
  Loop* const loop = node_->loop();
  node_->SetFilesystemOperations(nullptr);
  std::vector<std::shared_ptr<Entry>> mounts;
  RunOn(loop, [&] {
    ending_ = true;
    for (auto& [directory, mounted] : mounts_) mounts.push_back(mounted);
    mounts_.clear();
  });
  for (const auto& mounted : mounts) {
    const absl::Status status = fs::Mount::Unmount(mounted->mount->options().directory, true);
    if (!status.ok()) LogWarning("unmounting: ", status.message());
  }
  const auto is_quiet = [&] {
    bool quiet = true;
    RunOn(loop, [&] {
      quiet = under_way_ == 0;
      for (const auto& mounted : mounts) {
        mounted->mount->Stop();
        quiet = quiet && mounted->mount->under_way() == 0;
      }
    });
    return quiet;
  };
  while (!is_quiet()) std::this_thread::sleep_for(std::chrono::nanoseconds(kLookAgain));
  for (const auto& mounted : mounts) mounted->mount = nullptr;
  RunOn(loop, [&] {
    mounts.clear();
    super_root_ = nullptr;
  });
}

std::vector<Mounts::Wanted> Mounts::Mounted() const {
  std::vector<Wanted> all;
  RunOn(node_->loop(), [&] {
    for (const auto& [directory, entry] : mounts_) all.push_back({entry->fileset->info.name, directory});
  });
  return all;
}

void Mounts::MountAll(const std::vector<Wanted>& wanted) {
  for (const Wanted& mount : wanted) {
    Answer answer;
    Completion done;
    const std::string argument = nlohmann::json{{"fileset", mount.fileset}, {"directory", mount.directory}}.dump();
    node_->loop()->RunUntil(
        [&] {
          Spawn<Answer>(Operate({.uid = 0, .gid = 0, .groups = {}}, "fs mount", argument), [&](Answer given) {
            answer = std::move(given);
            done.Set();
          });
        },
        done);
    if (!answer.ok()) {
      LogError("fileset \"", mount.fileset, "\" is not mounted at ", mount.directory, ": ", answer.status().message());
    }
  }
}

template <typename T>
Outcome<T> Mounts::OnThread(std::function<T()> call) {
  Outcome<T> outcome(node_->loop());
  ++under_way_;
  std::thread([this, outcome, call = std::move(call)]() mutable {
    auto result = std::make_shared<T>(call());
    node_->loop()->Post([this, outcome, result]() mutable {
      --under_way_;
      outcome.Set(std::move(*result));
    });
  }).detach();
  return outcome;
}

Task<Mounts::Answer> Mounts::Operate(Credentials who, std::string what, std::string argument) {
  const std::string words(absl::StripPrefix(what, kPrefix));
  const bool only_looks = words == "mounts" || words == "fileset list" || words == "fileset show";
  if (!only_looks && who.uid != 0 && who.uid != geteuid()) {
    co_return absl::PermissionDeniedError(
        absl::StrCat("user ", who.uid, " may not do that: only root and the daemon's user may"));
  }
  if (ending_) co_return absl::UnavailableError("this node is shutting down");
  ++under_way_;
  Answer answer = absl::InvalidArgumentError(absl::StrCat("\"", words, "\" cannot be done"));
  if (words == "mounts") answer = List();
  if (words == "mount") answer = co_await MountAt(std::move(argument));
  if (words == "unmount") answer = co_await Unmount(std::move(argument));
  if (absl::StartsWith(words, "fileset ")) answer = co_await OfFileset(words, std::move(argument));
  --under_way_;
  if (!answer.ok()) co_return Plain(answer.status());
  co_return answer;
}

Task<Mounts::Answer> Mounts::OfFileset(std::string what, std::string argument) {
  if (what == "fileset list") {
    const absl::StatusOr<std::vector<fs::FilesetInfo>> infos = co_await super_root_->List();
    if (!infos.ok()) co_return infos.status();
    nlohmann::json list = nlohmann::json::array();
    for (const fs::FilesetInfo& info : *infos) list.push_back(DocumentOf(info));
    co_return Done({{"filesets", list}});
  }
  std::string name = argument;
  if (what == "fileset create") {
    const absl::StatusOr<nlohmann::json> wanted = Parse(argument);
    if (!wanted.ok()) co_return wanted.status();
    name = wanted->value("name", "");
    fs::FilesetOptions options;
    options.replicas = wanted->value("replicas", 0U);
    const absl::StatusOr<fs::FilesetInfo> made = co_await super_root_->Create(name, options);
    if (!made.ok()) co_return made.status();
  } else if (what == "fileset delete") {
    const absl::Status status = co_await super_root_->Delete(name);
    if (!status.ok()) co_return status;
    co_return Done({{"filesets", nlohmann::json::array()}});
  } else if (what == "fileset online" || what == "fileset offline") {
    const absl::Status status = co_await super_root_->SetOnline(name, what == "fileset online");
    if (!status.ok()) co_return status;
  } else if (what != "fileset show") {
    co_return absl::InvalidArgumentError(absl::StrCat("\"", what, "\" cannot be done"));
  }
  const absl::StatusOr<fs::FilesetInfo> info = co_await super_root_->Find(name);
  if (!info.ok()) co_return info.status();
  co_return Done({{"filesets", nlohmann::json::array({DocumentOf(*info)})}});
}

// --- Mounts -----------------------------------------------------------------------------------------------------------

std::string Mounts::List() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [directory, mounted] : mounts_) {
    list.push_back({{"fileset", mounted->fileset->info.name}, {"directory", directory}});
  }
  return Done({{"mounts", list}});
}

Task<absl::StatusOr<std::unique_ptr<fs::Mount>>> Mounts::Create(fs::MountOptions options) {
  using Created = absl::StatusOr<std::unique_ptr<fs::Mount>>;
  std::function<Created()> create = [options] { return fs::Mount::Create(options); };
  Outcome<Created> created = OnThread<Created>(std::move(create));
  Created mount = co_await created.Get();
  co_return mount;
}

Task<Mounts::Answer> Mounts::MountAt(std::string argument) {
  const absl::StatusOr<nlohmann::json> wanted = Parse(argument);
  if (!wanted.ok()) co_return wanted.status();
  const std::string name = wanted->value("fileset", "");
  const std::string directory = wanted->value("directory", "");
  if (mounts_.contains(directory)) {
    co_return absl::AlreadyExistsError(
        absl::StrCat("fileset \"", mounts_[directory]->fileset->info.name, "\" is mounted at ", directory));
  }
  absl::StatusOr<std::unique_ptr<fs::OpenFileset>> fileset = co_await super_root_->Open(name);
  if (!fileset.ok()) co_return fileset.status();
  fs::MountOptions options{.directory = directory, .source = name};
  absl::StatusOr<std::unique_ptr<fs::Mount>> mount = co_await Create(std::move(options));
  if (!mount.ok()) co_return mount.status();
  auto mounted = std::make_shared<Entry>();
  mounted->fileset = *std::move(fileset);
  mounted->mount = *std::move(mount);
  mounts_[directory] = mounted;
  mounted->mount->Serve(node_->loop(), mounted->fileset->instance.get(), [this, directory] { OnEnded(directory); });
  LogInfo("fileset \"", name, "\" is mounted at ", directory);
  co_return List();
}

// Somebody has taken it away, or the last who used it after that. What is under way ends first.
void Mounts::OnEnded(const std::string& directory) {
  const auto it = mounts_.find(directory);
  if (it == mounts_.end()) return;
  LogInfo(directory, " is unmounted");
  auto wait = [](Mounts* mounts, std::shared_ptr<Entry> mounted) -> Task<bool> {
    while (mounted->mount->under_way() > 0) {
      co_await SleepUntil(mounts->node_->loop(), mounts->node_->loop()->Now() + kLookAgain);
    }
    --mounts->under_way_;
    co_return true;
  };
  ++under_way_;
  auto mounted = it->second;
  mounts_.erase(it);
  Spawn<bool>(wait(this, std::move(mounted)), [](bool) {});
}

Task<Mounts::Answer> Mounts::Unmount(std::string argument) {
  const absl::StatusOr<nlohmann::json> wanted = Parse(argument);
  if (!wanted.ok()) co_return wanted.status();
  const std::string directory = wanted->value("directory", "");
  const bool by_force = wanted->value("force", false);
  if (!mounts_.contains(directory)) {
    co_return absl::NotFoundError(absl::StrCat("this node has no mount at ", directory));
  }
  std::function<absl::Status()> unmount = [directory, by_force] { return fs::Mount::Unmount(directory, by_force); };
  Outcome<absl::Status> unmounted = OnThread<absl::Status>(std::move(unmount));
  const absl::Status status = co_await unmounted.Get();
  if (!status.ok()) co_return status;
  co_return List();
}

}  // namespace mangrove
