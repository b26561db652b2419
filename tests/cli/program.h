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

// No shell in between; standard input holds `input`.
Ran run_hearth(const std::vector<std::string>& arguments, const std::string& input = "");

}  // namespace hearth::test
