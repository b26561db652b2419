// The one exception type: a cold step (load, parse, plan, request) failed for a reason outside the
// code. Broken code is HEARTH_CHECK's business, expected outcomes are return values.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace hearth {

// What failed, where (a file, a flag, a field) and what the person can do about it.
class Error : public std::exception {
 public:
  enum class Kind { kFailed, kUsage };  // exit codes 1 and 2

  Error(std::string what_failed, std::string where, std::string what_to_do,
        Kind kind = Kind::kFailed);

  // "WHERE: WHAT. WHAT TO DO", empty parts left out.
  const char* what() const noexcept override { return message_.c_str(); }
  Kind kind() const { return kind_; }

 private:
  std::string message_;
  Kind kind_;
};

Error usage_error(std::string what_failed, std::string where, std::string what_to_do);

// Collects every problem of one file or config, so that a person sees them all at once.
class Problems {
 public:
  explicit Problems(std::string where) : where_(std::move(where)) {}

  // Problems past a small number are counted, not kept: a hostile file must not cost memory.
  void add(std::string problem);
  bool empty() const { return count_ == 0; }

  // Throws an Error that lists all problems, if there are any.
  void throw_if_any(std::string_view what_to_do) const;

 private:
  std::string where_;
  std::vector<std::string> kept_;
  size_t count_ = 0;
};

}  // namespace hearth
