// What an operator does on a surviving anchor's node, while its daemon is stopped, when most anchors are lost for ever: its log is begun
// anew (recovery/recover_log.h), and the cluster gets another key, so that the lost anchors are strangers if they come back.

#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/node_config.h"
#include "recovery/recover_log.h"

namespace mangrove {

// Holds the node's store open, so that no daemon starts meanwhile. Not thread-safe.
class AnchorRecovery {
 public:
  // Changes nothing. NotFound: there is no store, or no log in it. FailedPrecondition: a daemon has the store; and as RecoverLog.
  // PermissionDenied: another user's store. DataLoss: the store, or the log, is damaged.
  static absl::StatusOr<std::unique_ptr<AnchorRecovery>> Open(const NodeConfig& config);
  ~AnchorRecovery();

  const RecoveredLog& log() const;
  // `position`: log().Position(), or InvalidArgument, and nothing is changed. Returns where the old keys are now. First the key is
  // another one, durably, then the log: if that ends between the two, it can be called again, on what is there then.
  absl::StatusOr<std::string> Run(const std::string& position);

 private:
  struct State;
  explicit AnchorRecovery(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

// Puts a new key, by the kernel's generator, as the only one into `path`. Returns where the old file is now: at the first name of
// PATH.before-recovery, PATH.before-recovery-2, … that was free.
absl::StatusOr<std::string> ReplaceClusterKeys(const std::string& path);

}  // namespace mangrove
