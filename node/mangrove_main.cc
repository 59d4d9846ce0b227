// mangrove: the command line. Asks the daemon of this host; see commands.cc.

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "engine/attach/inspect.h"
#include "net/log.h"
#include "node/commands.h"
#include "node/mount_command.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  mangrove::SetLogLevel(mangrove::LogLevel::kOff);  // What went wrong is in the answer.
  const mangrove::CommandEnvironment environment{.inspect = mangrove::InspectNode,
                                                 .socket_path = std::getenv("MANGROVE_SOCKET"),
                                                 .out = std::cout,
                                                 .err = std::cerr,
                                                 .wait_to_look =
                                                     [] {
                                                       std::this_thread::sleep_for(std::chrono::seconds(1));
                                                       return true;  // Until a signal ends it.
                                                     },
                                                 .clear_screen = isatty(STDOUT_FILENO) == 1 ? "\x1b[H\x1b[2J" : ""};
  const bool is_helper = argc > 0 && std::filesystem::path(argv[0]).filename() == mangrove::kMountHelperName;
  const int code =
      is_helper ? mangrove::RunMountHelper(arguments, environment) : mangrove::RunCommand(arguments, environment);
  std::cout.flush();
  return std::cout.good() ? code : mangrove::kExitFailed;
}
