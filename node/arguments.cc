#include "node/arguments.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

namespace mangrove {

Flag TextFlag(const std::string& name, std::string* value) {
  return {name, [value](const std::string& text) {
            *value = text;
            return absl::OkStatus();
          }};
}

Flag SwitchFlag(const std::string& name, bool* set) { return {name, nullptr, set}; }

absl::StatusOr<std::vector<std::string>> ParseArguments(std::span<const std::string> arguments,
                                                        const std::vector<Flag>& flags) {
  std::vector<std::string> words;
  std::set<std::string> seen;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      words.insert(words.end(), arguments.begin() + static_cast<ptrdiff_t>(i) + 1, arguments.end());
      break;
    }
    if (argument.size() < 2 || argument[0] != '-') {
      words.push_back(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const auto flag = std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == name; });
    if (flag == flags.end()) return absl::InvalidArgumentError(absl::StrCat("unknown flag ", name));
    if (!seen.insert(name).second) return absl::InvalidArgumentError(absl::StrCat(name, " is given twice"));
    if (!flag->take) {
      if (equals != std::string::npos) return absl::InvalidArgumentError(absl::StrCat(name, " takes no value"));
      *flag->set = true;
      continue;
    }
    if (equals == std::string::npos && ++i == arguments.size()) {
      return absl::InvalidArgumentError(absl::StrCat(name, " needs a value"));
    }
    const std::string value = equals == std::string::npos ? arguments[i] : argument.substr(equals + 1);
    if (absl::Status s = flag->take(value); !s.ok()) return s;
  }
  return words;
}

}  // namespace mangrove
