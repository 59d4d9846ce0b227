#include "engine/attach/attach_server.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach_codec.h"
#include "engine/attach/attached_client.h"
#include "engine/attach/packet_socket.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr int kBacklog = 128;
// Of one turn of the loop.
constexpr int kMaxAcceptsPerTurn = 16;
// After accept has failed for want of descriptors or memory.
constexpr DurationNs kAcceptPause = 100 * kMillisecond;

}  // namespace

AttachServer::AttachServer(Loop* loop, NodeOperations* operations, MappedClients* mapped_clients,
                           FindRegion find_region, AttachServerOptions options)
    : loop_(loop),
      operations_(operations),
      mapped_clients_(mapped_clients),
      find_region_(std::move(find_region)),
      options_(std::move(options)) {}

AttachServer::~AttachServer() { CHECK(!started_); }

absl::Status AttachServer::Start() {
  CHECK(!started_);
  auto deadline = DeadlineStamp::Create();
  if (!deadline.ok()) return deadline.status();
  deadline_.emplace(*std::move(deadline));
  if (absl::Status s = TakeSocketPath(); !s.ok()) return s;
  auto listening = ListenPacketSocket(options_.socket_path, kBacklog);
  if (!listening.ok()) return listening.status();
  listening_ = *std::move(listening);
  loop_->AddFd(listening_.get(), EPOLLIN, [this](uint32_t) { OnConnections(); });
  event_sink_ = operations_->AddEventSink([this](const NodeOperations::Event& event) { OnRegionEvent(event); });
  started_ = true;
  return absl::OkStatus();
}

// Two daemons that start at the same time are told apart by the lock of a file beside the socket: it ends with its
// process, so whoever has it may remove what lies there.
absl::Status AttachServer::TakeSocketPath() {
  const std::string& path = options_.socket_path;
  const std::string lock_path = absl::StrCat(path, ".lock");
  const auto served = [&path] {
    return absl::FailedPreconditionError(
        absl::StrCat("another daemon serves ", path, "; stop it, or choose another path"));
  };
  UniqueFd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.ok()) return SocketError(errno, absl::StrCat("open ", lock_path));
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK ? served() : SocketError(errno, absl::StrCat("lock ", lock_path));
  }
  struct stat info;
  if (lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode))
      return absl::FailedPreconditionError(absl::StrCat(path, " exists and is not a socket"));
    if (IsServed(path)) return served();
    if (unlink(path.c_str()) != 0) return SocketError(errno, absl::StrCat("remove the dead daemon's ", path));
  }
  lock_file_ = std::move(lock);
  return absl::OkStatus();
}

void AttachServer::Stop() {
  if (!started_) return;
  started_ = false;
  operations_->RemoveEventSink(event_sink_);
  loop_->Cancel(std::exchange(stamp_timer_, 0));
  loop_->Cancel(std::exchange(cut_off_timer_, 0));
  cut_off_done_ = nullptr;
  StopAccepting();
  // What they have mapped is not to be believed from now on, also by who does not look at his socket.
  deadline_->Set(0, 0);
  const auto clients = clients_;
  for (const auto& [id, client] : clients) client->Close(absl::UnavailableError("the daemon stops"));
  CHECK(clients_.empty());
  lock_file_.Reset();
}

void AttachServer::CutOff(DurationNs patience, absl::AnyInvocable<void(bool)> done) {
  if (!started_) return done(true);
  CHECK(!is_cut_off_);
  is_cut_off_ = true;
  cut_off_done_ = std::move(done);
  loop_->Cancel(std::exchange(stamp_timer_, 0));
  StopAccepting();
  deadline_->Set(0, 0);
  cut_off_timer_ = loop_->CallAt(loop_->Now() + patience, [this] {
    cut_off_timer_ = 0;
    EndCutOff(false);
  });
  const auto clients = clients_;
  for (const auto& [id, client] : clients) client->CutOff();
  if (clients_.empty()) EndCutOff(true);
}

void AttachServer::EndCutOff(bool all_have) {
  loop_->Cancel(std::exchange(cut_off_timer_, 0));
  if (auto done = std::exchange(cut_off_done_, nullptr)) done(all_have);
}

void AttachServer::StopAccepting() {
  if (!listening_.ok()) return;
  if (const auto timer = std::exchange(accept_timer_, 0); timer != 0) {
    loop_->Cancel(timer);
  } else {
    loop_->RemoveFd(listening_.get());
  }
  unlink(options_.socket_path.c_str());
  listening_.Reset();
}

void AttachServer::OnConnections() {
  for (int i = 0; i < kMaxAcceptsPerTurn; ++i) {
    UniqueFd socket(accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.ok()) {
      Accept(std::move(socket));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      return PauseAccepting();
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return;
    }
  }
}

// The waiting connection stays readable: without a pause the loop would spin.
void AttachServer::PauseAccepting() {
  Complain(0, SocketError(errno, absl::StrCat("accepting programs at ", options_.socket_path)));
  loop_->RemoveFd(listening_.get());
  accept_timer_ = loop_->CallAt(loop_->Now() + kAcceptPause, [this] {
    accept_timer_ = 0;
    loop_->AddFd(listening_.get(), EPOLLIN, [this](uint32_t) { OnConnections(); });
  });
}

void AttachServer::Accept(UniqueFd socket) {
  auto peer = PeerOf(socket.get());
  absl::Status admitted = peer.ok() ? Admit(peer->credentials.uid) : peer.status();
  if (!admitted.ok()) {
    Complain(peer.ok() ? peer->credentials.uid : 0, admitted);
    SendPacket(socket.get(), EncodeWelcome({.status = admitted, .node_name = options_.node_name}));
    return;
  }
  const ClientId id = next_client_++;
  ++clients_of_user_[peer->credentials.uid];
  auto client = std::make_shared<AttachedClient>(this, id, *std::move(peer), std::move(socket));
  clients_.emplace(id, client);
  if (stamp_timer_ == 0) Stamp();
  client->Start();
}

absl::Status AttachServer::Admit(uid_t uid) const {
  if (clients_.size() >= options_.max_clients) {
    return absl::ResourceExhaustedError(absl::StrCat(clients_.size(), " programs are attached, which is the limit"));
  }
  const auto of_user = clients_of_user_.find(uid);
  if (uid != 0 && of_user != clients_of_user_.end() && of_user->second >= options_.max_clients_per_user) {
    return absl::ResourceExhaustedError(
        absl::StrCat(of_user->second, " programs of user ", uid, " are attached, which is the limit"));
  }
  return absl::OkStatus();
}

void AttachServer::Forget(ClientId client) {
  const auto it = clients_.find(client);
  CHECK(it != clients_.end());
  const uid_t uid = it->second->credentials().uid;
  if (--clients_of_user_[uid] == 0) clients_of_user_.erase(uid);
  clients_.erase(it);
  if (is_cut_off_ && clients_.empty()) EndCutOff(true);
}

absl::Status AttachServer::CheckLease() const {
  if (!options_.serves_until || MonotonicNowNs() < options_.serves_until()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("node '", options_.node_name, "' has no lease on its place in the cluster at present; try again"));
}

void AttachServer::Stamp() {
  stamp_timer_ = 0;
  // Nobody looks: the loop may sleep.
  if (clients_.empty()) return;
  SetDeadline();
  stamp_timer_ = loop_->CallAt(loop_->Now() + options_.stamp_interval, [this] { Stamp(); });
}

void AttachServer::OnLease() {
  if (deadline_ && !clients_.empty()) SetDeadline();
}

// The loop's clock is CLOCK_MONOTONIC, as the page's is.
void AttachServer::SetDeadline() {
  if (is_cut_off_) return;
  deadline_->Set(MonotonicNowNs() + options_.deadline, options_.serves_until ? options_.serves_until() : kForever);
}

void AttachServer::OnRegionEvent(const NodeOperations::Event& event) {
  // One that does not take it is closed, and leaves the map.
  const auto clients = clients_;
  for (const auto& [id, client] : clients) client->OnRegionEvent(event);
}

void AttachServer::Complain(uid_t uid, const absl::Status& status) {
  log_once_.Log(LogLevel::kWarning, absl::StrCat(uid, " ", static_cast<int>(status.code())),
                absl::StrCat("attached program of user ", uid, ": ", status.ToString()));
}

}  // namespace mangrove
