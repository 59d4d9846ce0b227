#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "node/command.h"
#include "node/render.h"

namespace mangrove {

std::string ConfirmedArgument(const std::string& node, const Options& options) {
  return options.confirm.empty() ? node : node + " confirmed";
}

std::string ShownArgument(const std::string& node, const Options& options) {
  return options.confirm.empty() ? node : absl::StrCat(node, " confirmed ", options.confirm);
}

std::string SetRegionArgument(const std::string& region, const Options& options) {
  return nlohmann::json{{"region", region}, {"without_quorum", options.without_quorum}}.dump();
}

std::vector<Command> PageCommands() {
  return {
      {{"region", "list"},
       nullptr,
       "regions",
       RenderRegions,
       "the regions of the cluster",
       "Name, address, size, allocated bytes, owner, group and mode of each region, and what a node does with it that\n"
       "reaches too few anchors."},
      {.words = {"region", "set"},
       .parameter = "REGION",
       .what = "set region",
       .render = RenderRegions,
       .summary = "changes what is done with a region without quorum",
       .help =
           "--without-quorum refuse: a node that reaches too few anchors takes the region's pages away from programs\n"
           "until it reaches enough. --without-quorum read: the pages that it has can be read meanwhile, as they\n"
           "were; others may have newer ones. It counts for programs that open the region from then on, and for the\n"
           "nodes where they do. For the region's owner and root.",
       .flags = {"--without-quorum"},
       .argument = SetRegionArgument},
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
      {.words = {"log", "give-up"},
       .parameter = "NODE",
       .what = "give up log",
       .render = RenderGiveUpLog,
       .summary = "gives up what is lost of the log of a node's transactions",
       .help = "For a log that no disk can be read from any more: until then no transaction begins anywhere. Without\n"
               "--confirm it only says what cannot be read. With --confirm NODE what is lost of it is lost for good:\n"
               "transactions that were committed. NODE must not be here. For root and the user of the daemon.",
       .flags = {"--confirm"},
       .argument = ConfirmedArgument},
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
}

}  // namespace mangrove
