#include "format/gguf_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "format/gguf_value.h"

namespace hearth {
namespace {

constexpr size_t kDigits = 5;

std::optional<int64_t> parse_digits(std::string_view text) {
  int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = 10 * value + (c - '0');
  }
  return value;
}

void check_number(const GgufHeader& part, const std::string& name, const std::string& key,
                  int64_t expected, Problems& problems) {
  const auto found = part.metadata.find(key);
  const int64_t* value =
      found == part.metadata.end() ? nullptr : std::get_if<int64_t>(&found->second);
  if (value == nullptr) {
    problems.add(
        fmt::format("{}: the integer {} is missing; it should be {}", name, key, expected));
  } else if (*value != expected) {
    problems.add(fmt::format("{}: {} is {}, but should be {}", name, key, *value, expected));
  }
}

// The first part's word counts; a later one may repeat it, not contradict it.
void check_keys(const GgufHeader& first, const GgufHeader& part, const std::string& name,
                Problems& problems) {
  for (const auto& [key, value] : part.metadata) {
    if (key == "split.no" || key == "general.alignment") continue;
    const auto found = first.metadata.find(key);
    if (found != first.metadata.end() && found->second != value) {
      problems.add(fmt::format("{}: key {} differs from the first part's", name, in_quotes(key)));
    }
  }
}

}  // namespace

std::filesystem::path SplitName::path_of(int64_t other_part) const {
  std::filesystem::path path = stem;
  path += fmt::format("-{:05}-of-{:05}.gguf", other_part + 1, count);
  return path;
}

std::optional<SplitName> parse_split_name(const std::filesystem::path& path) {
  const std::string name = path.string();
  const std::string_view suffix = ".gguf", of = "-of-";
  const size_t tail = 1 + kDigits + of.size() + kDigits + suffix.size();
  if (name.size() <= tail || !name.ends_with(suffix)) return std::nullopt;
  const size_t dash = name.size() - tail;
  const std::string_view middle = std::string_view(name).substr(dash + 1 + kDigits, of.size());
  if (name[dash] != '-' || middle != of) return std::nullopt;
  const auto number = parse_digits(std::string_view(name).substr(dash + 1, kDigits));
  const auto count =
      parse_digits(std::string_view(name).substr(dash + 1 + kDigits + of.size(), kDigits));
  if (!number || !count || *number < 1 || *number > *count) return std::nullopt;
  return SplitName{name.substr(0, dash), *number - 1, *count};
}

void check_part(const GgufHeader& header, const std::string& name, int64_t part, int64_t count,
                Problems& problems) {
  check_number(header, name, "split.no", part, problems);
  check_number(header, name, "split.count", count, problems);
}

void check_together(const std::vector<const GgufHeader*>& parts,
                    const std::vector<std::string>& names, Problems& problems) {
  int64_t tensors = 0;
  for (const GgufHeader* part : parts) tensors += static_cast<int64_t>(part->tensors.size());
  std::map<std::string_view, size_t> holder;
  for (size_t i = 0; i < parts.size(); ++i) {
    check_number(*parts[i], names[i], "split.tensors.count", tensors, problems);
    check_keys(*parts.front(), *parts[i], names[i], problems);
    for (const TensorEntry& tensor : parts[i]->tensors) {
      const auto [found, is_new] = holder.emplace(tensor.name, i);
      if (is_new) continue;
      problems.add(fmt::format("{}: tensor {} stands in {} too", names[i], in_quotes(tensor.name),
                               names[found->second]));
    }
  }
}

}  // namespace hearth
