#include "node/commands.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "directory/address.h"
#include "engine/node_config.h"
#include "node/arguments.h"
#include "node/command.h"
#include "node/fileset_flags.h"
#include "node/fsck.h"
#include "node/group_path.h"
#include "node/mount_command.h"
#include "node/render.h"
#include "node/setup.h"
#include "node/stream_commands.h"

namespace mangrove {
namespace {

constexpr uint64_t kMostReplicas = 64;
constexpr uint64_t kMostValidS = 7 * 24 * 3600;

SetupOptions SetupOf(const Options& options) {
  SetupOptions setup;
  if (!options.directory.empty()) setup.directory = options.directory;
  setup.socket = options.socket;
  setup.name = options.name;
  setup.address = options.address;
  setup.is_encrypted = options.encrypted;
  if (options.replicas) setup.replicas = static_cast<uint32_t>(*options.replicas);
  if (options.group) setup.group = *options.group;
  setup.votes = options.anchor ? 1 : 0;
  setup.patience = std::max<DurationNs>(static_cast<DurationNs>(options.timeout_s * kSecond), kSecond);
  return setup;
}

absl::StatusOr<std::string> MakeCluster(const std::string& cluster, const Options& options) {
  SetupOptions setup = SetupOf(options);
  setup.cluster = cluster;
  return SetUpCluster(setup);
}

// "-": the token comes on the standard input, where no other user sees it.
absl::StatusOr<std::string> Join(const std::string& token, const Options& options) {
  std::string text = token;
  if (text == "-" && !std::getline(std::cin, text)) {
    return absl::InvalidArgumentError("no token on the standard input");
  }
  return SetUpJoin(text, SetupOf(options));
}

std::string SetArgument(const std::string& node, const Options& options) {
  nlohmann::json wanted{{"node", node}};
  if (options.votes) wanted["votes"] = *options.votes;
  if (!options.address.empty()) wanted["address"] = options.address;
  return wanted.dump();
}

std::string TokenArgument(const std::string&, const Options& options) {
  constexpr uint64_t kValidS = 15 * 60;
  if (options.list) return "list";
  if (!options.withdraw.empty()) return "withdraw " + options.withdraw;
  return std::to_string(options.valid_s.value_or(kValidS));
}

// One that has the cluster do something with a node.
Command OfNode(const char* word, const char* what, const char* summary, const char* help) {
  return {{"node", word}, "NODE", what, RenderMembership, summary, help};
}

std::vector<Command> NodeCommands() {
  return {
      {.words = {"cluster", "init"},
       .parameter = "CLUSTER",
       .summary = "makes a cluster, with its first node on this machine",
       .help =
           "Makes the configuration, the key and the data's directory of the first node of a new cluster, which is "
           "its\n"
           "anchor. --replicas: on how many disks pages are kept, when there are so many (default 2). --encrypted:\n"
           "what nodes say to each other cannot be read on its way. No daemon is asked; start one afterwards.",
       .flags = {"--name", "--address", "--dir", "--replicas", "--encrypted"},
       .set_up = MakeCluster},
      {{"node", "list"},
       nullptr,
       "nodes",
       RenderNodes,
       "the nodes of the cluster, as this one sees them",
       "Names, groups, addresses and votes as the anchors have them, who is here, and whether this node is connected\n"
       "to them."},
      {.words = {"node", "token"},
       .parameter = nullptr,
       .what = "token",
       .render = RenderToken,
       .summary = "makes a token with which a machine may join",
       .help =
           "The token is good once, for --valid S seconds (default 900), at this node and while it runs. Whoever has\n"
           "it can join and gets the cluster's key: it is a secret. --list: those of this node, by their ids, of "
           "which\n"
           "no token can be made. --withdraw ID, or all: it is void from now on. For root and the user of the daemon.",
       .flags = {"--valid", "--list", "--withdraw"},
       .argument = TokenArgument},
      {.words = {"node", "join"},
       .parameter = "TOKEN",
       .summary = "makes this machine a node of a cluster",
       .help =
           "With a TOKEN of \"node token\" (-: from the standard input): asks the node that made it, and makes this\n"
           "machine's configuration, key and data's directory. --anchor: it votes, when it is there. --group: the\n"
           "group that it is to be in, such as 3, or 2/5 for group 5 of group 2. No daemon is asked here; start one\n"
           "afterwards.",
       .flags = {"--name", "--address", "--dir", "--anchor", "--group"},
       .set_up = Join},
      {.words = {"node", "set"},
       .parameter = "NODE",
       .what = "set",
       .render = RenderMembership,
       .summary = "changes a node's votes or address",
       .help =
           "--votes N: of NODE as an anchor; 0: it is none. They change one by one. --address HOST:PORT: where the\n"
           "others reach it; change its configuration as well, and start it again. For root and the daemon's user.",
       .flags = {"--votes", "--address"},
       .argument = SetArgument},
  };
}

std::vector<Command> LeavingCommands() {
  return {
      OfNode("drain", "drain", "takes a node out of the cluster in order",
             "What NODE keeps on its disk goes to other nodes; \"status\" shows how far it is. Then its daemon\n"
             "flushes what it has in its cache and ends, and the cluster forgets the node: it does not come back\n"
             "under its identity. \"node undrain NODE\" calls it off. For root and the user of the daemon."),
      OfNode("undrain", "undrain", "calls a drain off", "NODE stays, or gets back what it is to keep."),
      {.words = {"node", "give-up"},
       .parameter = "NODE",
       .what = "give up node",
       .render = RenderGiveUpNode,
       .summary = "gives a node up that is lost for ever",
       .help =
           "NODE is away, and never comes back, nor does its disk: nobody waits for it any more, and others get\n"
           "copies of what it kept from those that have them. What was on its disk alone is lost. This says what that\n"
           "is, as far as is known, and does nothing. It ends with the --confirm with which NODE is given up, if what "
           "is\n"
           "lost with it is still the same: otherwise that is said, and nothing is done. For root and the daemon's "
           "user.\n"
           "Not for a node that may come back: after a while others take its place by themselves.",
       .flags = {"--confirm"},
       .argument = ShownArgument,
       .refused = RefusalOf},
  };
}

std::vector<Command> GroupCommands() {
  return {
      {{"group", "list"},
       nullptr,
       "nodes",
       RenderGroups,
       "the groups of nodes",
       "Which nodes are in which group. A node's group is a part of its identity: to be in another one it is drained,\n"
       "and joins anew with --group."},
      {{"group", "show"},
       nullptr,
       "nodes",
       RenderGroupTree,
       "the tree of the groups",
       "The groups and the groups within them, with their nodes and how many of these are here. The copies of a page\n"
       "are in different groups of the highest level, as far as there are so many, then in different ones within "
       "them."},
  };
}

std::string FilesetArgument(const std::string& name, const Options& options) {
  return nlohmann::json{{"name", name}, {"replicas", options.copies.value_or(options.replicas.value_or(0))}}.dump();
}
std::string SetFilesetArgument(const std::string& name, const Options& options) {
  return SetFilesetRequest(name, options.copies, options.quota_bytes, options.quota_inodes);
}

std::string MountArgument(const std::string& fileset, const Options& options) {
  return MountRequest(fileset, options.directory, options.mount_options);
}

Command OfFileset(const char* word, const char* what, const char* summary, const char* help) {
  return {{"fileset", word}, "NAME", what, RenderFilesets, summary, help};
}

std::vector<Command> FilesetCommands() {
  return {
      {{"fileset", "list"},
       nullptr,
       "fs fileset list",
       RenderFilesets,
       "the filesets of the space",
       "Their names and states."},
      {.words = {"fileset", "create"},
       .parameter = "NAME",
       .what = "fs fileset create",
       .render = RenderFilesets,
       .summary = "makes an empty fileset",
       .help =
           "--copies, or --replicas: on how many disks everything in it is kept; otherwise as many as the cluster's\n"
           "pages.",
       .flags = {"--copies", "--replicas"},
       .argument = FilesetArgument},
      OfFileset("show", "fs fileset show", "one of them", "Its state, what is used of it, and what may be at most."),
      {.words = {"fileset", "set"},
       .parameter = "NAME",
       .what = "fs fileset set",
       .render = RenderFilesets,
       .summary = "changes what a fileset may use, and how often it is kept",
       .help =
           "--quota-bytes: data that may be in it at most, such as 10G; each page counts once, whatever the copies.\n"
           "--quota-inodes: files and directories. 0 or none: as much as there is. A quota below what is used refuses\n"
           "only more. --copies: on how many disks storage is kept that it takes from now on.",
       .flags = {"--quota-bytes", "--quota-inodes", "--copies"},
       .argument = SetFilesetArgument},
      OfFileset("offline", "fs fileset offline", "has it mounted nowhere anew",
                "Mounts that there are go on. A fileset that is offline can be deleted."),
      OfFileset("online", "fs fileset online", "undoes that", "It can be mounted again."),
      OfFileset("delete", "fs fileset delete", "deletes it, with everything in it",
                "It has to be offline. What was interrupted is done by the same command again."),
      {.words = {"fsck"},
       .parameter = "FILESET",
       .summary = "checks a fileset, every page of it against the others, also while it is used",
       .help = "--repair: mends what is found, of a fileset that is offline and mounted nowhere.\n"
               "Exit codes: 0 sound, 1 all repaired, 4 problems left, 8 not checked.",
       .flags = {"--repair"}},
      {.words = {"mount"},
       .parameter = "FILESET",
       .what = "fs mount",
       .render = RenderMounts,
       .summary = "mounts a fileset on this host",
       .help = "DIR is an empty directory. Any number of nodes may mount a fileset; all see one tree.\n"
               "-o: ro, noexec, noatime, suid, dev and others as of mount(8), with commas between.",
       .flags = {"-o"},
       .argument = MountArgument,
       .second = "DIR"},
      {.words = {"unmount"},
       .parameter = "DIR",
       .what = "fs unmount",
       .render = RenderMounts,
       .summary = "ends a mount",
       .help = "--force: also if somebody uses it; then it is not seen any more, and ends with the last who does.",
       .flags = {"--force"},
       .argument = [](const std::string& directory,
                      const Options& options) { return UnmountRequest(directory, options.force); }},
      {{"mounts"}, nullptr, "fs mounts", RenderMounts, "what is mounted by this node", "Filesets, and where."},
  };
}

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = [] {
    std::vector<Command> all{
        {{"status"},
         nullptr,
         "status",
         RenderStatus,
         "what the node says of itself",
         "Whether the node is ready, its cache and disk, the connections to its peers, its counters.\n"
         "A node is ready when every other node has answered what it asked since its start."},
    };
    for (const auto& more : {NodeCommands(), LeavingCommands(), GroupCommands(), PageCommands(), FilesetCommands()})
      all.insert(all.end(), more.begin(), more.end());
    return all;
  }();
  return commands;
}

bool NeedsParameter(const Command& command) { return command.parameter != nullptr && command.parameter[0] != '['; }

std::string UsageOf(const Command& command) {
  std::string flags;
  for (const std::string& flag : command.flags) {
    const bool is_switch = absl::StrContains("--anchor --encrypted --list --force --repair", flag);
    const char* const value = flag == "--name"             ? " NODE"
                              : flag == "--address"        ? " HOST:PORT"
                              : flag == "--dir"            ? " DIR"
                              : flag == "--group"          ? " GROUP"
                              : flag == "--without-quorum" ? " refuse|read"
                              : flag == "--withdraw"       ? " ID|all"
                              : flag == "--quota-bytes"    ? " SIZE"
                              : flag == "-o"               ? " OPTIONS"
                              : is_switch                  ? ""
                                                           : " N";
    absl::StrAppend(&flags, " [", flag, value, "]");
  }
  const char* const of_daemon = command.set_up == nullptr ? " [--json] [--watch]" : "";
  return absl::StrCat("mangrove [--socket PATH] ", absl::StrJoin(command.words, " "),
                      command.parameter != nullptr ? absl::StrCat(" ", command.parameter) : "",
                      command.second != nullptr ? absl::StrCat(" ", command.second) : "", flags, of_daemon);
}

std::string FlagsHelp() {
  return absl::StrCat(
      "  --socket PATH   where the node's daemon serves this host; otherwise MANGROVE_SOCKET of the environment,\n"
      "                  otherwise ",
      kDefaultSocketPath,
      "\n"
      "  --json          print the document as the daemon gives it, for programs\n"
      "  --watch         ask again every second, until it is interrupted\n"
      "  --timeout S     wait for the daemon at most S seconds (default 10)\n"
      "  --help          this text, or that of a command\n"
      "  --version       print the version\n");
}

std::string Help() {
  std::string text = "mangrove: asks a node of the cluster.\n\n";
  for (const Command& command : Commands())
    absl::StrAppend(&text, "  ", UsageOf(command), "\n      ", command.summary, "\n");
  absl::StrAppend(&text, "  mangrove stream list|cat|put|remove PATH [NAME]\n      named streams of a file\n");
  return absl::StrCat(text, "\n", FlagsHelp(), "\nExit codes: 0 done, 1 no answer or an error, 2 wrong usage.\n");
}

std::string HelpOf(const Command& command) {
  return absl::StrCat("usage: ", UsageOf(command), "\n\n", command.help, "\n\n", FlagsHelp());
}

Flag NumberFlag(const std::string& name, uint64_t least, uint64_t most, std::optional<uint64_t>* value) {
  return {name, [name, least, most, value](const std::string& text) {
            uint64_t number = 0;
            if (!absl::SimpleAtoi(text, &number) || number < least || number > most) {
              return absl::InvalidArgumentError(
                  absl::StrCat(name, " is \"", text, "\", expected a whole number from ", least, " to ", most));
            }
            *value = number;
            return absl::OkStatus();
          }};
}

std::vector<Flag> Flags(Options* options) {
  const auto take_timeout = [options](const std::string& text) {
    if (absl::SimpleAtod(text, &options->timeout_s) && options->timeout_s > 0 && options->timeout_s <= 3600) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("--timeout is \"", text, "\", expected a number of seconds up to 3600"));
  };
  return {TextFlag("--socket", &options->socket),
          SwitchFlag("--json", &options->json),
          SwitchFlag("--watch", &options->watch),
          SwitchFlag("--help", &options->help),
          SwitchFlag("-h", &options->help),
          {"--timeout", take_timeout},
          SwitchFlag("--version", &options->version),
          NumberFlag("--votes", 0, kMaxVotes, &options->votes),
          {"--group",
           [options](const std::string& text) {
             const absl::StatusOr<uint64_t> group = ParseGroupPath(text);
             if (group.ok()) options->group = *group;
             return group.status();
           }},
          NumberFlag("--replicas", 1, kMostReplicas, &options->replicas),
          NumberFlag("--copies", 1, kMostReplicas, &options->copies),
          QuotaFlag("--quota-bytes", true, &options->quota_bytes),
          QuotaFlag("--quota-inodes", false, &options->quota_inodes),
          NumberFlag("--valid", 1, kMostValidS, &options->valid_s),
          SwitchFlag("--anchor", &options->anchor),
          SwitchFlag("--encrypted", &options->encrypted),
          SwitchFlag("--force", &options->force),
          SwitchFlag("--list", &options->list),
          SwitchFlag("--repair", &options->repair),
          TextFlag("--withdraw", &options->withdraw),
          {"--confirm",
           [options](const std::string& text) {
             options->confirm = text;
             return text.empty() ? absl::InvalidArgumentError("--confirm is empty, expected what is confirmed by it")
                                 : absl::OkStatus();
           }},
          TextFlag("--name", &options->name),
          TextFlag("--address", &options->address),
          TextFlag("--dir", &options->directory),
          TextFlag("--without-quorum", &options->without_quorum),
          TextFlag("-o", &options->mount_options)};
}

// Those that are given and not for every command.
std::vector<std::string> GivenFlags(const Options& options) {
  std::vector<std::string> given;
  const auto note = [&](bool is_given, const char* flag) {
    if (is_given) given.emplace_back(flag);
  };
  note(options.votes.has_value(), "--votes");
  note(options.group.has_value(), "--group");
  note(options.replicas.has_value(), "--replicas");
  note(options.copies.has_value(), "--copies");
  note(options.quota_bytes.has_value(), "--quota-bytes");
  note(options.quota_inodes.has_value(), "--quota-inodes");
  note(options.valid_s.has_value(), "--valid");
  note(options.anchor, "--anchor");
  note(options.encrypted, "--encrypted");
  note(options.force, "--force");
  note(options.list, "--list");
  note(options.repair, "--repair");
  note(!options.withdraw.empty(), "--withdraw");
  note(!options.confirm.empty(), "--confirm");
  note(!options.name.empty(), "--name");
  note(!options.address.empty(), "--address");
  note(!options.directory.empty(), "--dir");
  note(!options.without_quorum.empty(), "--without-quorum");
  note(!options.mount_options.empty(), "-o");
  return given;
}

// The command that the words begin with, or null.
const Command* Find(const std::vector<std::string>& words) {
  for (const Command& command : Commands()) {
    if (words.size() >= command.words.size() && std::equal(command.words.begin(), command.words.end(), words.begin())) {
      return &command;
    }
  }
  return nullptr;
}

int FailUsage(const CommandEnvironment& environment, const std::string& what) {
  environment.err << "mangrove: " << what << "; see mangrove --help\n";
  return kExitUsage;
}

int Fail(const CommandEnvironment& environment, const absl::Status& status) {
  environment.err << "mangrove: " << status.message() << "\n";
  return kExitFailed;
}

AttachOptions AttachAs(const Options& options, const CommandEnvironment& environment) {
  AttachOptions attach;
  attach.socket_path = kDefaultSocketPath;
  if (environment.socket_path != nullptr && *environment.socket_path != '\0')
    attach.socket_path = environment.socket_path;
  if (!options.socket.empty()) attach.socket_path = options.socket;
  attach.limits.call_timeout_ms = std::max<int64_t>(1, static_cast<int64_t>(options.timeout_s * 1000));
  return attach;
}

int Ask(const Command& command, const Options& options, const std::string& argument,
        const CommandEnvironment& environment) {
  if (command.what == nullptr) {
    return RunFsck(argument, {options.repair, options.json}, AttachAs(options, environment), environment);
  }
  const AttachOptions attach = AttachAs(options, environment);
  const auto document = environment.inspect(attach, command.what, argument);
  constexpr char kWhere[] =
      "\nmangrove: --socket or MANGROVE_SOCKET name the socket of a running mangroved; its configuration says where it "
      "is";
  // A daemon that answers names others that do not.
  const bool is_no_daemon = absl::StrContains(document.status().message(), attach.socket_path);
  if (absl::IsUnavailable(document.status()) && is_no_daemon) {
    return Fail(environment, absl::UnavailableError(absl::StrCat(document.status().message(), kWhere)));
  }
  if (!document.ok()) return Fail(environment, document.status());
  const absl::StatusOr<std::string> text = options.json ? document : command.render(*document);
  if (!text.ok()) return Fail(environment, text.status());
  environment.out << *text << (text->ends_with('\n') ? "" : "\n");
  const std::string refused = command.refused == nullptr ? "" : command.refused(*document);
  return refused.empty() ? kExitDone : Fail(environment, absl::FailedPreconditionError(refused));
}

// What goes wrong is shown, and asked again: a node that is being started is what one watches, too.
int Watch(const Command& command, const Options& options, const std::string& argument,
          const CommandEnvironment& environment) {
  int code = kExitDone;
  do {
    environment.out << environment.clear_screen;
    code = Ask(command, options, argument, environment);
    environment.out.flush();
  } while (environment.out.good() && environment.wait_to_look());
  return code;
}

// What asks no daemon, behind flags that are for all commands.
int RunOther(std::span<const std::string> words, const Options& options, const CommandEnvironment& environment) {
  if (words[0] != "stream") {
    return FailUsage(environment, absl::StrCat("unknown command \"", absl::StrJoin(words, " "), "\""));
  }
  const std::vector<std::string> given = GivenFlags(options);
  if (!given.empty()) return FailUsage(environment, absl::StrCat(given[0], " is not for \"stream\""));
  return RunStreamCommand(words.subspan(1), environment);
}

}  // namespace

int RunCommand(std::span<const std::string> arguments, const CommandEnvironment& environment) {
  if (!arguments.empty() && arguments[0] == "stream") return RunStreamCommand(arguments.subspan(1), environment);
  Options options;
  const absl::StatusOr<std::vector<std::string>> words = ParseArguments(arguments, Flags(&options));
  if (!words.ok()) return FailUsage(environment, std::string(words.status().message()));
  if (options.version) {
    environment.out << "mangrove " << MANGROVE_VERSION << "\n";
    return kExitDone;
  }
  const Command* command = Find(*words);
  if (options.help) {
    environment.out << (command != nullptr ? HelpOf(*command) : Help());
    return kExitDone;
  }
  if (words->empty()) return FailUsage(environment, "no command is given");
  if (command == nullptr) return RunOther(*words, options, environment);
  const size_t first = command->words.size();
  const size_t most = first + (command->parameter != nullptr ? 1 : 0) + (command->second != nullptr ? 1 : 0);
  if (words->size() > most) {
    return FailUsage(environment, absl::StrCat("unexpected argument \"", (*words)[most], "\""));
  }
  const bool has_parameter = words->size() > command->words.size();
  if (!has_parameter && NeedsParameter(*command)) {
    return FailUsage(environment,
                     absl::StrCat("\"", absl::StrJoin(command->words, " "), "\" needs ", command->parameter));
  }
  if (command->second != nullptr && words->size() < most) {
    return FailUsage(environment, absl::StrCat("\"", absl::StrJoin(command->words, " "), "\" needs ", command->second));
  }
  const std::string parameter = has_parameter ? (*words)[first] : "";
  for (const std::string& flag : GivenFlags(options)) {
    if (std::find(command->flags.begin(), command->flags.end(), flag) != command->flags.end()) continue;
    return FailUsage(environment, absl::StrCat(flag, " is not for \"", absl::StrJoin(command->words, " "), "\""));
  }
  if (command->second != nullptr) options.directory = words->back();
  if (command->argument == SetArgument && !options.votes && options.address.empty()) {
    return FailUsage(environment, "\"node set\" needs --votes or --address");
  }
  if (command->argument == ConfirmedArgument && !options.confirm.empty() && options.confirm != parameter) {
    return FailUsage(environment, absl::StrCat("--confirm is \"", options.confirm, "\", expected \"", parameter, "\""));
  }
  if (command->argument == TokenArgument && GivenFlags(options).size() > 1) {
    return FailUsage(environment, absl::StrCat(absl::StrJoin(GivenFlags(options), " and "), " do not go together"));
  }
  if (command->argument == SetRegionArgument && options.without_quorum.empty()) {
    return FailUsage(environment, "\"region set\" needs --without-quorum");
  }
  if (command->argument == SetFilesetArgument && GivenFlags(options).empty()) {
    return FailUsage(environment, "\"fileset set\" needs --quota-bytes, --quota-inodes or --copies");
  }
  if (const auto parsed = ParseMountOptions(options.mount_options); !parsed.ok()) {
    return FailUsage(environment, std::string(parsed.status().message()));
  }
  if (command->set_up != nullptr) {
    const absl::StatusOr<std::string> done = command->set_up(parameter, options);
    if (!done.ok()) return Fail(environment, done.status());
    environment.out << *done;
    return kExitDone;
  }
  const std::string argument = command->argument == nullptr ? parameter : command->argument(parameter, options);
  if (has_parameter && absl::StrContains(command->parameter, "ADDRESS")) {
    if (const auto address = ParseGlobalAddress(argument); !address.ok()) {
      return FailUsage(environment, std::string(address.status().message()));
    }
  }
  return options.watch && command->what != nullptr ? Watch(*command, options, argument, environment)
                                                   : Ask(*command, options, argument, environment);
}

}  // namespace mangrove
