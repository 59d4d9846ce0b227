#include "node/commands.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "directory/address.h"
#include "node/arguments.h"
#include "node/render.h"

namespace mangrove {
namespace {

struct Command {
  std::vector<std::string> words;
  const char* parameter;  // Null: it takes none. In brackets: it may be left out.
  const char* what;       // For Inspect.
  absl::StatusOr<std::string> (*render)(const std::string& document);
  const char* summary;
  const char* help;
};

// One that has the cluster do something with a node.
Command OfNode(const char* word, const char* what, const char* summary, const char* help) {
  return {{"node", word}, "NODE", what, RenderMembership, summary, help};
}

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands{
      {{"status"},
       nullptr,
       "status",
       RenderStatus,
       "what the node says of itself",
       "Whether the node is ready, its cache and disk, the connections to its peers, its counters.\n"
       "A node is ready when every other node has answered what it asked since its start."},
      {{"node", "list"},
       nullptr,
       "nodes",
       RenderNodes,
       "the nodes of the cluster, as this one sees them",
       "The members by the configuration, and whether this node is connected to them."},
      OfNode("drain", "drain", "takes a node out of the cluster in order",
             "What NODE keeps on its disk goes to other nodes; \"status\" shows how far it is. Then its daemon\n"
             "flushes what it has in its cache and ends, and the cluster forgets the node: it does not come back\n"
             "under its identity. \"node undrain NODE\" calls it off. For root and the user of the daemon."),
      OfNode("undrain", "undrain", "calls a drain off", "NODE stays, or gets back what it is to keep."),
      OfNode("give-up", "give up", "gives a node up that is lost for ever",
             "NODE is away, and never comes back, nor does its disk: nobody waits for it any more, and others get\n"
             "copies of what it kept from those that have them. What was on its disk alone is lost.\n"
             "Not for a node that may come back: after 10 minutes others take its place by themselves."),
      {{"region", "list"},
       nullptr,
       "regions",
       RenderRegions,
       "the regions of the cluster",
       "Name, address, size, allocated bytes, owner, group and mode of each region."},
      {{"page", "show"},
       "ADDRESS",
       "page",
       RenderPage,
       "where a page is, and in which state",
       "The page that has ADDRESS, a number below 2^128 such as 0x100000000 or as \"region list\" prints it: its\n"
       "responsible node, core holders, owner and sharers, and what this node's cache has of it."},
      {{"directory", "show"},
       "[ADDRESS]",
       "directory",
       RenderDirectory,
       "which node is responsible for which segments",
       "The RAM directory: its pages, how many segments each node is responsible for, and the first runs of them.\n"
       "With ADDRESS: the directory's pages from the root to the one about it, and the run that it is in.\n"
       "Nobody becomes responsible for a segment by this."},
      {{"log", "show"},
       "NODE",
       "log",
       RenderLog,
       "what transactions of a node have committed",
       "The log of NODE, a number or a name, from its oldest record on that is not given up: of each transaction the "
       "pages\n"
       "that it wrote, their sequences and how many bytes, not what they are. After a loss a log is read by the "
       "others, and\n"
       "given up."},
  };
  return commands;
}

bool NeedsParameter(const Command& command) { return command.parameter != nullptr && command.parameter[0] != '['; }

std::string UsageOf(const Command& command) {
  return absl::StrCat("mangrove [--socket PATH] ", absl::StrJoin(command.words, " "),
                      command.parameter != nullptr ? absl::StrCat(" ", command.parameter) : "", " [--json] [--watch]");
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
  return absl::StrCat(text, "\n", FlagsHelp(), "\nExit codes: 0 done, 1 no answer or an error, 2 wrong usage.\n");
}

std::string HelpOf(const Command& command) {
  return absl::StrCat("usage: ", UsageOf(command), "\n\n", command.help, "\n\n", FlagsHelp());
}

struct Options {
  std::string socket;
  double timeout_s = 10;
  bool json = false;
  bool watch = false;
  bool help = false;
  bool version = false;
};

std::vector<Flag> Flags(Options* options) {
  const auto take_timeout = [options](const std::string& text) {
    if (absl::SimpleAtod(text, &options->timeout_s) && options->timeout_s > 0 && options->timeout_s <= 3600) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("--timeout is \"", text, "\", expected a number of seconds up to 3600"));
  };
  return {TextFlag("--socket", &options->socket),    SwitchFlag("--json", &options->json),
          SwitchFlag("--watch", &options->watch),    SwitchFlag("--help", &options->help),
          SwitchFlag("-h", &options->help),          {"--timeout", take_timeout},
          SwitchFlag("--version", &options->version)};
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

std::string SocketPath(const Options& options, const CommandEnvironment& environment) {
  if (!options.socket.empty()) return options.socket;
  if (environment.socket_path != nullptr && *environment.socket_path != '\0') return environment.socket_path;
  return kDefaultSocketPath;
}

int Ask(const Command& command, const Options& options, const std::string& argument,
        const CommandEnvironment& environment) {
  AttachOptions attach;
  attach.socket_path = SocketPath(options, environment);
  attach.limits.call_timeout_ms = std::max<int64_t>(1, static_cast<int64_t>(options.timeout_s * 1000));
  const absl::StatusOr<std::string> document = environment.inspect(attach, command.what, argument);
  if (absl::IsUnavailable(document.status())) {
    return Fail(environment, absl::UnavailableError(absl::StrCat(
                                 document.status().message(),
                                 "\nmangrove: --socket or MANGROVE_SOCKET name the socket of a running mangroved; its "
                                 "configuration says where it is")));
  }
  if (!document.ok()) return Fail(environment, document.status());
  if (options.json) {
    environment.out << *document << (document->ends_with('\n') ? "" : "\n");
    return kExitDone;
  }
  const absl::StatusOr<std::string> text = command.render(*document);
  if (!text.ok()) return Fail(environment, text.status());
  environment.out << *text;
  return kExitDone;
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

}  // namespace

int RunCommand(std::span<const std::string> arguments, const CommandEnvironment& environment) {
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
  if (command == nullptr) {
    return FailUsage(environment, absl::StrCat("unknown command \"", absl::StrJoin(*words, " "), "\""));
  }
  const size_t most = command->words.size() + (command->parameter != nullptr ? 1 : 0);
  if (words->size() > most) {
    return FailUsage(environment, absl::StrCat("unexpected argument \"", (*words)[most], "\""));
  }
  const bool has_parameter = words->size() > command->words.size();
  if (!has_parameter && NeedsParameter(*command)) {
    return FailUsage(environment,
                     absl::StrCat("\"", absl::StrJoin(command->words, " "), "\" needs ", command->parameter));
  }
  const std::string argument = has_parameter ? words->back() : "";
  if (has_parameter && absl::StrContains(command->parameter, "ADDRESS")) {
    if (const auto address = ParseGlobalAddress(argument); !address.ok()) {
      return FailUsage(environment, std::string(address.status().message()));
    }
  }
  return options.watch ? Watch(*command, options, argument, environment)
                       : Ask(*command, options, argument, environment);
}

}  // namespace mangrove
