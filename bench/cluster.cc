#include "bench/cluster.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "bench/node_worker.h"
#include "bench/timing.h"
#include "tests/free_port.h"

namespace mangrove::bench {

Cluster::Cluster(ClusterOptions options) : options_(std::move(options)) {
  std::filesystem::create_directories(options_.directory);
  WriteKey();
  for (size_t i = 0; i < options_.cores.size(); ++i) {
    members_.push_back({NodeId(i + 1), absl::StrCat("node-", i + 1), absl::StrCat("127.0.0.1:", FreePort())});
  }
  for (size_t i = 0; i < members_.size(); ++i) {
    if (IsDaemon(i)) StartDaemon(i);
  }
  workers_.resize(members_.size());
  for (size_t i = 0; i < members_.size(); ++i) StartWorker(i);
  for (auto& worker : workers_) worker->Begin("start");
  for (auto& worker : workers_) worker->End();
  for (size_t i = 0; options_.mounts && i < members_.size(); ++i) {
    if (IsDaemon(i)) AwaitMount(i);
  }
  if (options_.pages == 0) return;
  workers_[0]->Call("reserve", options_.pages);
  for (size_t i = 1; i < workers_.size(); ++i) workers_[i]->Call("open", options_.pages);
}

void Cluster::StartWorker(size_t index) {
  const NodeConfig config = ConfigOf(index);
  std::function<Verbs()> make;
  if (options_.make) {
    make = [config, verbs = options_.make] { return verbs(config); };
  } else if (IsDaemon(index)) {
    make = [config] {
      return MakeNodeVerbs([config] { return Session::Attach({.socket_path = config.socket_path, .limits = {}}); });
    };
  } else {
    make = [config] { return MakeNodeVerbs([config] { return Session::Embed(config); }); };
  }
  workers_[index] = std::make_unique<Worker>(members_[index].name, options_.cores[index], std::move(make));
}

void Cluster::Restart(size_t index) {
  workers_[index].reset();
  StartWorker(index);
  workers_[index]->Call("start");
}

// Workers end while their peers are there to take what they flush.
Cluster::~Cluster() {
  workers_.clear();
  for (const pid_t daemon : daemons_) kill(daemon, SIGTERM);
  for (const pid_t daemon : daemons_) AwaitEnd(daemon);
  std::error_code ignored;
  std::filesystem::remove_all(options_.directory, ignored);
}

void Cluster::WriteKey() const {
  const std::string path = options_.directory + "/key";
  const int file = static_cast<int>(Must(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), path));
  const std::string key(64, 'b');
  Must(write(file, key.data(), key.size()), path);
  close(file);
}

NodeConfig Cluster::ConfigOf(size_t index) const {
  NodeConfig config;
  config.name = members_[index].name;
  config.data_dir = absl::StrCat(options_.directory, "/", config.name);
  std::filesystem::create_directories(config.data_dir);
  if (IsDaemon(index)) config.socket_path = config.data_dir + "/socket";
  const bool is_other = index == 0 && options_.first_cache_mib > 0;
  config.cache_size_bytes = (is_other ? options_.first_cache_mib : options_.cache_mib) << 20;
  config.spin_us = options_.spin_us;
  config.log_level = "error";
  config.cluster_name = "bench";
  config.key_file = options_.directory + "/key";
  config.replicas = options_.replicas;
  config.members = members_;
  return config;
}

void Cluster::StartDaemon(size_t index) {
  const NodeConfig config = ConfigOf(index);
  const std::string path = config.data_dir + "/mangroved.toml";
  std::ofstream file(path);
  file << "[node]\nname = \"" << config.name << "\"\ndata_dir = \"" << config.data_dir << "\"\nsocket = \""
       << config.socket_path << "\"\ncache_size_mib = " << (config.cache_size_bytes >> 20)
       << "\nspin_us = " << config.spin_us << "\nlog_level = \"error\"\n[cluster]\nname = \"" << config.cluster_name
       << "\"\nkey_file = \"" << config.key_file << "\"\nreplicas = " << config.replicas << "\n";
  for (const MemberConfig& member : members_) {
    file << "[[members]]\nid = " << member.id.value << "\nname = \"" << member.name << "\"\naddress = \""
         << member.address << "\"\n";
  }
  if (options_.mounts) {
    std::filesystem::create_directories(mount_of(index));
    file << "[[mounts]]\nfileset = \"default\"\ndirectory = \"" << mount_of(index) << "\"\n";
  }
  file.close();
  if (!file) Die("cannot write " + path);
  const pid_t daemon = static_cast<pid_t>(Must(fork(), "fork"));
  if (daemon != 0) {
    daemons_.push_back(daemon);
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  PinTo(options_.cores[index]);
  execl(options_.daemon.c_str(), options_.daemon.c_str(), "--config", path.c_str(), static_cast<char*>(nullptr));
  Die("cannot start " + options_.daemon);
}

void Cluster::AwaitMount(size_t index) const {
  const int64_t limit = NowNs() + int64_t{60'000'000'000};
  struct statfs fs {};
  while (statfs(mount_of(index).c_str(), &fs) != 0 || fs.f_type != FUSE_SUPER_MAGIC) {
    if (NowNs() > limit) Die("nothing was mounted at " + mount_of(index));
    usleep(10'000);
  }
}

}  // namespace mangrove::bench
