#include "node/mounts.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/page_engine.h"
#include "fs/status.h"
#include "net/log.h"
#include "node/fileset_settings.h"

namespace mangrove {
namespace {

// Of embedded programs and the engine itself are lower, of attached ones higher numbers.
constexpr ClientId kFirstClient = ClientId{1} << 24;
constexpr char kPrefix[] = "fs ";
constexpr DurationNs kLookAgain = 10 * kMillisecond;
constexpr uint64_t kMostReplicas = 64;
constexpr DurationNs kMountAgain = 500 * kMillisecond;
constexpr DurationNs kEndAgain = kSecond;
// Of another mount, or the end of one.
constexpr DurationNs kLongestTurn = 20 * kSecond;

nlohmann::json DocumentOf(const fs::FilesetInfo& info, const fs::SuperRoot& super_root) {
  nlohmann::json document{{"name", info.name},
                          {"state", fs::ToString(info.state)},
                          {"replicas", info.replicas},
                          {"number", info.number},
                          {"made_ns", info.made_ns}};
  if (const std::optional<NodeId> by = super_root.RepairedBy(info)) document["repaired_by_node"] = by->value;
  return document;
}

std::string Done(const nlohmann::json& document) { return document.dump(2) + "\n"; }

absl::StatusOr<nlohmann::json> Parse(const std::string& argument) {
  nlohmann::json parsed = nlohmann::json::parse(argument, nullptr, false);
  if (parsed.is_object()) return parsed;
  return absl::InvalidArgumentError(absl::StrCat("\"", argument, "\" is no JSON object"));
}

// Empty where there is none.
std::string TextOf(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// The name that the kernel has for a directory; as it is given, if it cannot be looked up.
std::string Resolved(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(directory, error);
  return error ? directory : path.string();
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
  std::shared_ptr<fs::OpenFileset> fileset;  // All mounts of a fileset here have one instance.
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
    return operations->AllocateAhead({.uid = 0, .gid = 0, .groups = {}}, pages, options, deadline);
  };
  engine.space = [operations](TimeNs deadline) { return operations->Space(deadline); };
  super_root_ = std::make_unique<fs::SuperRoot>(engine, operations, [this] { return next_client_++; });
  checks_ = std::make_unique<FileChecks>(node->loop(), [this](std::string name, fs::CheckOptions options) {
    return super_root_->Check(std::move(name), options);
  });
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
    checks_->Stop();
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
      // Also one that was being mounted.
      for (auto& [directory, mounted] : std::exchange(mounts_, {})) mounts.push_back(mounted);
      for (auto& mounted : std::exchange(detached_, {})) mounts.push_back(mounted);
      quiet = under_way_ == 0 && checks_->running() == 0;
      for (const auto& mounted : mounts) {
        mounted->mount->Stop();
        quiet = quiet && mounted->mount->under_way() == 0;
      }
    });
    return quiet;
  };
  while (!is_quiet()) std::this_thread::sleep_for(std::chrono::nanoseconds(kLookAgain));
  for (const auto& mounted : mounts) mounted->mount = nullptr;
  EndAllUse(mounts);
  RunOn(loop, [&] {
    mounts.clear();
    super_root_ = nullptr;
  });
}

void Mounts::EndAllUse(const std::vector<std::shared_ptr<Entry>>& mounts) {
  std::set<std::shared_ptr<fs::OpenFileset>> filesets;
  for (const auto& entry : mounts) filesets.insert(entry->fileset);
  for (const auto& fileset : filesets) {
    Completion done;
    node_->loop()->RunUntil([&] { Spawn<bool>(EndUse(fileset), [&](bool) { done.Set(); }); }, done);
  }
}

std::vector<Mounts::Wanted> Mounts::Kept() const {
  std::vector<Wanted> all;
  RunOn(node_->loop(), [&] {
    all = awaited_;
    for (const auto& [directory, entry] : mounts_) {
      all.push_back({entry->fileset->info.name, directory, entry->mount->options().flags});
    }
  });
  return all;
}

void Mounts::Keep(std::vector<Wanted> wanted) {
  RunOn(node_->loop(), [&] {
    awaited_ = wanted;
    for (const Wanted& mount : wanted) {
      ++under_way_;
      Spawn<bool>(KeepMounted(mount), [this](bool) { --under_way_; });
    }
  });
}

// Without one an operation would wait for long, and keep this node from ending.
Task<bool> Mounts::HasLease() {
  const Answer document = co_await node_->operations()->Inspect("status", "", node_->loop()->Now() + kSecond);
  if (!document.ok()) co_return false;
  const nlohmann::json status = nlohmann::json::parse(*document, nullptr, false);
  co_return status.contains("membership") && status["membership"].value("has_lease", false);
}

// While the cluster starts there may be too few nodes of it. A reason that stays is said once.
Task<bool> Mounts::KeepMounted(Wanted wanted) {
  std::string said;
  while (!ending_) {
    Answer answer = absl::UnavailableError("too few nodes of the cluster are here");
    if (co_await HasLease()) answer = co_await MountAt(wanted);
    if (answer.ok()) {
      std::erase_if(awaited_, [&](const Wanted& other) { return other.directory == wanted.directory; });
      co_return true;
    }
    if (said != answer.status().message()) {
      said = std::string(answer.status().message());
      LogWarning("fileset \"", wanted.fileset, "\" is not mounted at ", wanted.directory, " yet: ", said);
    }
    co_await SleepUntil(node_->loop(), node_->loop()->Now() + kMountAgain);
  }
  co_return false;
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
  const bool is_operator = who.uid == 0 || who.uid == geteuid();
  if (!only_looks && !is_operator) {
    co_return absl::PermissionDeniedError(
        absl::StrCat("user ", who.uid, " may not do that: only root and the daemon's user may"));
  }
  if (ending_) co_return absl::UnavailableError("this node is shutting down");
  ++under_way_;
  Answer answer = absl::InvalidArgumentError(absl::StrCat("\"", words, "\" cannot be done"));
  if (words == "mounts") answer = List();
  if (words == "mount") answer = co_await Mount(std::move(argument));
  if (words == "unmount") answer = co_await Unmount(std::move(argument));
  if (absl::StartsWith(words, "fileset ")) answer = co_await OfFileset(words, std::move(argument), is_operator);
  --under_way_;
  if (!answer.ok()) co_return Plain(answer.status());
  co_return answer;
}

Task<Mounts::Answer> Mounts::OfFileset(std::string what, std::string argument, bool is_operator) {
  if (what == "fileset list") {
    const absl::StatusOr<std::vector<fs::FilesetInfo>> infos = co_await super_root_->List();
    if (!infos.ok()) co_return infos.status();
    nlohmann::json list = nlohmann::json::array();
    for (const fs::FilesetInfo& info : *infos) list.push_back(DocumentOf(info, *super_root_));
    co_return Done({{"filesets", list}});
  }
  std::string name = argument;
  if (what == "fileset check") co_return co_await checks_->Ask(std::move(argument));
  if (what == "fileset create") {
    const absl::StatusOr<nlohmann::json> wanted = Parse(argument);
    if (!wanted.ok()) co_return wanted.status();
    name = TextOf(*wanted, "name");
    fs::FilesetOptions options;
    const auto replicas = wanted->find("replicas");
    if (replicas != wanted->end()) {
      if (!replicas->is_number_unsigned() || replicas->get<uint64_t>() > kMostReplicas) {
        co_return absl::InvalidArgumentError(
            absl::StrCat("replicas is ", replicas->dump(), ", expected a number up to ", kMostReplicas));
      }
      options.replicas = replicas->get<uint32_t>();
    }
    const absl::StatusOr<fs::FilesetInfo> made = co_await super_root_->Create(name, options);
    if (!made.ok()) co_return made.status();
  } else if (what == "fileset set") {
    absl::StatusOr<std::string> changed = co_await SetFileset(super_root_.get(), std::move(argument));
    if (!changed.ok()) co_return changed;
    name = *std::move(changed);
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
  nlohmann::json document = DocumentOf(*info, *super_root_);
  // To look into it takes addresses of this daemon for good: not at anybody's wish.
  if (is_operator && (info->state == fs::FilesetState::kOnline || info->state == fs::FilesetState::kOffline)) {
    const absl::StatusOr<std::string> usage = co_await UsageOfFileset(super_root_.get(), name);
    if (!usage.ok()) co_return usage;
    document.update(nlohmann::json::parse(*usage));
  }
  co_return Done({{"filesets", nlohmann::json::array({document})}});
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

Task<Mounts::Answer> Mounts::Mount(std::string argument) {
  const absl::StatusOr<nlohmann::json> wanted = Parse(argument);
  if (!wanted.ok()) co_return wanted.status();
  Wanted mount{.fileset = TextOf(*wanted, "fileset"), .directory = TextOf(*wanted, "directory")};
  for (const nlohmann::json& option : wanted->value("options", nlohmann::json::array())) {
    mount.options.push_back(option.is_string() ? option.get<std::string>() : option.dump());
  }
  co_return co_await MountAt(std::move(mount));
}

Task<absl::StatusOr<std::shared_ptr<fs::OpenFileset>>> Mounts::OpenFileset(std::string name) {
  const TimeNs deadline = node_->loop()->Now() + kLongestTurn;
  while (!at_work_.insert(name).second) {
    if (node_->loop()->Now() >= deadline) {
      co_return absl::UnavailableError(
          absl::StrCat("this node is still opening fileset \"", name, "\", or giving it up; try it again"));
    }
    co_await SleepUntil(node_->loop(), node_->loop()->Now() + kLookAgain);
  }
  absl::StatusOr<std::shared_ptr<fs::OpenFileset>> opened = co_await FindOrOpen(name);
  at_work_.erase(name);
  co_return opened;
}

Task<absl::StatusOr<std::shared_ptr<fs::OpenFileset>>> Mounts::FindOrOpen(std::string name) {
  const absl::StatusOr<fs::FilesetInfo> info = co_await super_root_->Find(name);
  if (!info.ok()) co_return info.status();
  const auto there = open_.find(info->number);
  if (there != open_.end() && info->state == fs::FilesetState::kOnline) {
    std::shared_ptr<fs::OpenFileset> fileset = there->second.lock();
    if (fileset != nullptr) co_return fileset;
  }
  absl::StatusOr<std::unique_ptr<fs::OpenFileset>> opened = co_await super_root_->Open(name);
  if (!opened.ok()) co_return opened.status();
  std::shared_ptr<fs::OpenFileset> fileset = *std::move(opened);
  open_[fileset->info.number] = fileset;
  co_return fileset;
}

// In good order. What it leaves to the next one otherwise is work, not damage.
Task<bool> Mounts::EndUse(std::shared_ptr<fs::OpenFileset> fileset) {
  const std::string name = fileset->info.name;
  while (!at_work_.insert(name).second) {
    co_await SleepUntil(node_->loop(), node_->loop()->Now() + kLookAgain);
  }
  absl::Status status;
  // Otherwise another mount has it by now.
  const bool is_last = ending_ || fileset.use_count() == 1;
  if (is_last) {
    open_.erase(fileset->info.number);
    co_await fileset->EndUpkeep();
    // At the end of the node it does not wait for a lease.
    if (!ending_ || node_->engine()->Serves()) status = co_await fileset->instance->EndUse();
    // Others wait for what a node that uses the fileset has not said: where that cannot be taken back yet, it is tried again.
    while (!ending_ && (fs::ErrnoOf(status) == EAGAIN || fs::ErrnoOf(status) == ETIMEDOUT)) {
      co_await SleepUntil(node_->loop(), node_->loop()->Now() + kEndAgain);
      if (ending_ && !node_->engine()->Serves()) break;
      status = co_await fileset->instance->EndUse();
    }
  }
  at_work_.erase(name);
  if (!status.ok())
    LogWarning("fileset \"", fileset->info.name, "\" is left as if this node had been lost: ", status.message());
  co_return status.ok();
}

Task<Mounts::Answer> Mounts::MountAt(Wanted wanted) {
  absl::StatusOr<std::shared_ptr<fs::OpenFileset>> fileset = co_await OpenFileset(wanted.fileset);
  if (!fileset.ok()) co_return fileset.status();
  fs::MountOptions options{.directory = wanted.directory, .source = wanted.fileset, .flags = wanted.options};
  absl::StatusOr<std::unique_ptr<fs::Mount>> mount = co_await Create(std::move(options));
  if (!mount.ok()) {
    co_await EndUse(*std::move(fileset));
    co_return mount.status();
  }
  auto entry = std::make_shared<Entry>();
  entry->fileset = *std::move(fileset);
  entry->mount = *std::move(mount);
  const std::string directory = entry->mount->options().directory;
  // One that somebody else has taken away may not have ended yet.
  if (const auto below = mounts_.find(directory); below != mounts_.end()) Detach(below->second.get());
  mounts_[directory] = entry;
  entry->mount->Serve(node_->loop(), entry->fileset->instance.get(), [this, self = entry.get()] { OnEnded(self); });
  LogInfo("fileset \"", wanted.fileset, "\" is mounted at ", directory);
  co_return List();
}

// It is out of the tree; whoever has something of it open goes on.
void Mounts::Detach(const Entry* entry) {
  const auto it = std::find_if(mounts_.begin(), mounts_.end(), [&](const auto& m) { return m.second.get() == entry; });
  if (it == mounts_.end()) return;
  LogInfo(it->first, " is unmounted");
  detached_.push_back(std::move(it->second));
  mounts_.erase(it);
}

// Nobody uses it any more. What is under way ends first.
void Mounts::OnEnded(const Entry* entry) {
  Detach(entry);
  const auto it = std::find_if(detached_.begin(), detached_.end(), [&](const auto& m) { return m.get() == entry; });
  if (it == detached_.end()) return;
  auto wait = [](Mounts* mounts, std::shared_ptr<Entry> ended) -> Task<bool> {
    while (ended->mount->under_way() > 0) {
      co_await SleepUntil(mounts->node_->loop(), mounts->node_->loop()->Now() + kLookAgain);
    }
    std::shared_ptr<fs::OpenFileset> fileset = ended->fileset;
    co_await fileset->instance->locks()->ClearMount(ended->mount->number());
    // It may wait for threads, and these for other mounts.
    auto mount = std::make_shared<std::unique_ptr<fs::Mount>>(std::move(ended->mount));
    std::function<bool()> destroy = [mount] {
      *mount = nullptr;
      return true;
    };
    Outcome<bool> destroyed = mounts->OnThread<bool>(std::move(destroy));
    co_await destroyed.Get();
    ended = nullptr;
    co_await mounts->EndUse(std::move(fileset));
    --mounts->under_way_;
    co_return true;
  };
  ++under_way_;
  auto ended = std::move(*it);
  detached_.erase(it);
  Spawn<bool>(wait(this, std::move(ended)), [](bool) {});
}

Task<Mounts::Answer> Mounts::Unmount(std::string argument) {
  const absl::StatusOr<nlohmann::json> wanted = Parse(argument);
  if (!wanted.ok()) co_return wanted.status();
  const std::string given = TextOf(*wanted, "directory");
  const auto force = wanted->find("force");
  const bool by_force = force != wanted->end() && *force == true;
  std::function<std::string()> resolve = [given] { return Resolved(given); };
  Outcome<std::string> resolved = OnThread<std::string>(std::move(resolve));
  const std::string directory = co_await resolved.Get();
  const auto it = mounts_.find(directory);
  if (it == mounts_.end()) co_return absl::NotFoundError(absl::StrCat("this node has no mount at ", given));
  // Only looked at: whoever has the fileset's last mount gives it up, and that is not this call.
  const std::weak_ptr<Entry> entry = it->second;
  std::function<absl::Status()> unmount = [directory, by_force] { return fs::Mount::Unmount(directory, by_force); };
  Outcome<absl::Status> unmounted = OnThread<absl::Status>(std::move(unmount));
  const absl::Status status = co_await unmounted.Get();
  if (!status.ok()) co_return status;
  if (const std::shared_ptr<Entry> there = entry.lock()) Detach(there.get());
  co_return List();
}

}  // namespace mangrove
