// mangrove: the command line. Asks the daemon of this host; see commands.cc.

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "engine/attach/inspect.h"
#include "node/commands.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const mangrove::CommandEnvironment environment{mangrove::InspectNode, std::getenv("MANGROVE_SOCKET"), std::cout,
                                                 std::cerr};
  const int code = mangrove::RunCommand(arguments, environment);
  std::cout.flush();
  return std::cout.good() ? code : mangrove::kExitFailed;
}
