// Runs the hearth program as a person would.
#pragma once

#include <string>
#include <vector>

namespace hearth::test {

struct Ran {
  int exit_code;  // -1 where a signal ended it
  std::string out;
  std::string err;
};

// No shell in between; standard input holds `input`. Standard output goes to the file `to` instead
// where one is named.
Ran run_hearth(const std::vector<std::string>& arguments, const std::string& input = "",
               const std::string& to = "");

}  // namespace hearth::test
