// The arguments of a program: flags, with or without a value, and words.

#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mangrove {

struct Flag {
  std::string name;  // "--config"
  // Takes the value that follows the flag, or is joined to it by '='. Empty: the flag stands alone and sets `set`.
  std::function<absl::Status(const std::string& value)> take;
  bool* set = nullptr;
};

// A flag with a value of text.
Flag TextFlag(const std::string& name, std::string* value);
// A flag that stands alone.
Flag SwitchFlag(const std::string& name, bool* set);

// Returns the words that are neither flags nor their values; all that follow "--" are words. InvalidArgument names what
// is not known, given twice, or has no value.
absl::StatusOr<std::vector<std::string>> ParseArguments(std::span<const std::string> arguments,
                                                        const std::vector<Flag>& flags);

}  // namespace mangrove
