// A node: the page engine over the real doors, with its store, its connections, its mapped memory and its loop. The
// daemon (node/) and a program that embeds a node start the same one.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mapping/mapped_clients.h"
#include "engine/node_config.h"
#include "engine/node_operations.h"
#include "net/runtime/loop.h"

namespace mangrove {

class PageEngine;
class RegionMemory;

// What the owner of a node is told. Each is called once at most, on the loop; each may be empty.
struct NodeNews {
  // The cluster has gone on without this node, which did not answer for a while: every operation fails from then on, and
  // programs have lost their mappings. Its owner ends it and starts another.
  std::function<void()> expelled;
  // The node was drained: nothing is kept here any more. Its owner drains and ends it, and does not start it again.
  std::function<void()> drained;
  // The node was taken out of the cluster for good while it was away. Its owner ends it.
  std::function<void()> removed;
};

// Thread-safe but for Start and the destructor.
class Node {
 public:
  // Opens the store, takes a new incarnation, connects to the other members and serves local programs at
  // config.socket_path. Returns when the node serves; other members may still be away. Blocks for as long as the store
  // takes to open.
  static absl::StatusOr<std::unique_ptr<Node>> Start(const NodeConfig& config, NodeNews news = {});
  // Ends everything, bounded; local programs see the node gone. What was not flushed and is here alone is lost, unless
  // Drain was called.
  ~Node();

  // Before an orderly end: flushes every dirty page of this node. The error is the first page's.
  absl::Status Drain(DurationNs timeout);
  // Its other steps, in this order; each may be left out, and costs at most half a second and more than some milliseconds only where
  // nobody answers.
  // The others hear that this node stops, and whether it still has to flush.
  void SetStopping(bool flushes);
  // Another node of the view stops, and has said of late that it still has to flush.
  bool OthersFlush();
  // If this node leads the anchors, another one does.
  void HandOver();
  // Nothing is served or used here any more, by programs either: every operation fails from then on. Then the others hear that
  // this node leaves, and go on without it at once. Unless a program does not give up what it has mapped: then they wait, as
  // for a node that is killed, until the lease has ended.
  void Leave();

  // Reads the key file anew, and returns the fingerprints of what is in it: FabricTransport::SetKeys. On an error nothing
  // changes.
  absl::StatusOr<std::vector<std::string>> ReloadKeys();

  Loop* loop();
  // On the loop.
  NodeOperations* operations();
  PageEngine* engine();
  // LocalOperations::SetFilesystemOperations. Not on the loop.
  using FilesystemOperations =
      absl::AnyInvocable<Task<absl::StatusOr<std::string>>(Credentials who, std::string what, std::string argument)>;
  void SetFilesystemOperations(FilesystemOperations operations);
  // Pages of an open region that came here since it was first opened on this node.
  uint64_t PagesFetched(PageRange pages) const;
  RegionMemory* memory();
  MappedClients* mapped_clients();
  FaultService* fault_service();
  const NodeConfig& config() const;

 private:
  struct State;
  explicit Node(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mangrove
