#include "engine/recover_anchors.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "engine/store/rocks_store.h"
#include "engine/whole_file.h"
#include "net/runtime/loop.h"
#include "net/runtime/system_entropy.h"

namespace mangrove {
namespace {

// The store would be made if it were not there, and files that this process makes must be the daemon's.
absl::Status CheckStore(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return FileError(errno, "find the store", path);
  if (info.st_uid == geteuid()) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("store ", path, " is of user ", info.st_uid, ", and this is user ",
                                                  geteuid(), "; run it as the daemon's user"));
}

}  // namespace

absl::StatusOr<std::string> ReplaceClusterKeys(const std::string& path) {
  std::string old = path + ".before-recovery";
  // The one of an earlier run stays: that is the key that the lost anchors have.
  for (int number = 2; link(path.c_str(), old.c_str()) != 0; ++number) {
    if (errno != EEXIST) return FileError(errno, "keep the old keys as", old);
    old = absl::StrCat(path, ".before-recovery-", number);
  }
  SystemEntropy entropy;
  const std::string keys = FormatClusterKeys({NewClusterKey(&entropy)});
  if (absl::Status status = WriteWholeFile(path, kKeyFileMode, keys, IfThere::kReplace); !status.ok()) {
    unlink(old.c_str());
    return status;
  }
  return old;
}

struct AnchorRecovery::State {
  explicit State(const NodeConfig& c) : config(c) {}
  ~State() {
    if (loop_started) loop.Stop();
    store.reset();
  }

  absl::Status Open();
  // Runs `start(done)` on the loop and returns what it hands to `done`.
  template <typename T>
  T Await(absl::FunctionRef<void(absl::AnyInvocable<void(T)>)> start) {
    Completion completion;
    std::optional<T> result;
    const auto run = [&] {
      start([&](T value) {
        result.emplace(std::move(value));
        completion.Set();
      });
    };
    loop.RunUntil(run, completion);
    return std::move(*result);
  }

  const NodeConfig config;
  Loop loop{LoopOptions{}};
  bool loop_started = false;
  std::unique_ptr<RocksStore> store;
  RecoveredLog log;
};

absl::Status AnchorRecovery::State::Open() {
  RocksStoreOptions options;
  options.path = config.data_dir + "/store";
  if (absl::Status status = CheckStore(options.path); !status.ok()) return status;
  options.post = [this](absl::AnyInvocable<void()> task) { loop.Post(std::move(task)); };
  options.cluster = ClusterIdOf(config.cluster_name);
  options.node = config.self().id;
  options.reserve_bytes = config.disk_reserve_bytes;
  auto opened = RocksStore::Open(std::move(options));
  if (!opened.ok()) return opened.status();
  store = std::move(*opened);
  if (absl::Status status = loop.Start(); !status.ok()) return status;
  loop_started = true;
  using Records = absl::StatusOr<std::vector<std::pair<std::string, std::string>>>;
  const Records records = Await<Records>(
      [&](absl::AnyInvocable<void(Records)> done) { store->ReadRecords(AnchorRecords::kPrefix, std::move(done)); });
  if (!records.ok()) return records.status();
  absl::StatusOr<RecoveredLog> recovered = RecoverLog(config.self().id, *records);
  if (!recovered.ok()) return recovered.status();
  log = *std::move(recovered);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AnchorRecovery>> AnchorRecovery::Open(const NodeConfig& config) {
  auto state = std::make_unique<State>(config);
  if (absl::Status status = state->Open(); !status.ok()) return status;
  return std::unique_ptr<AnchorRecovery>(new AnchorRecovery(std::move(state)));
}

AnchorRecovery::AnchorRecovery(std::unique_ptr<State> state) : state_(std::move(state)) {}
AnchorRecovery::~AnchorRecovery() = default;

const RecoveredLog& AnchorRecovery::log() const { return state_->log; }

absl::StatusOr<std::string> AnchorRecovery::Run(const std::string& position) {
  State& s = *state_;
  if (position != s.log.Position()) {
    return absl::InvalidArgumentError(absl::StrCat("the log on this disk ends at ", s.log.Position(), ", not at \"",
                                                   position, "\"; nothing was changed"));
  }
  absl::StatusOr<std::string> old = ReplaceClusterKeys(s.config.key_file);
  if (!old.ok()) return old.status();
  const absl::Status kept = s.Await<absl::Status>([&](absl::AnyInvocable<void(absl::Status)> done) {
    StoreBatch batch;
    for (const AnchorRecords::Record& record : s.log.records) batch.records.push_back({record.key, record.value});
    s.store->Commit(std::move(batch), std::move(done));
  });
  if (kept.ok()) return old;
  return absl::Status(
      kept.code(),
      absl::StrCat("the key is another one already, and the log is as it was: run it again; ", kept.message()));
}

}  // namespace mangrove
