#include "base/error.h"

#include <fmt/format.h>

namespace hearth {
namespace {

constexpr size_t kProblemsKept = 100;

std::string compose(const std::string& what_failed, const std::string& where,
                    const std::string& what_to_do) {
  std::string message = where.empty() ? what_failed : where + ": " + what_failed;
  if (!what_to_do.empty()) message += message.ends_with('\n') ? what_to_do : ". " + what_to_do;
  return message;
}

}  // namespace

Error::Error(std::string what_failed, std::string where, std::string what_to_do, Kind kind)
    : message_(compose(what_failed, where, what_to_do)), kind_(kind) {}

Error usage_error(std::string what_failed, std::string where, std::string what_to_do) {
  return Error(std::move(what_failed), std::move(where), std::move(what_to_do),
               Error::Kind::kUsage);
}

void Problems::add(std::string problem) {
  if (++count_ <= kProblemsKept) kept_.push_back(std::move(problem));
}

void Problems::throw_if_any(std::string_view what_to_do) const {
  if (empty()) return;
  if (count_ == 1) throw Error(kept_.front(), where_, std::string(what_to_do));
  std::string list = fmt::format("{} problems\n", count_);
  for (const std::string& problem : kept_) list += "  - " + problem + "\n";
  if (count_ > kept_.size()) list += fmt::format("  - and {} more\n", count_ - kept_.size());
  throw Error(list, where_, std::string(what_to_do));
}

}  // namespace hearth
