#include "gpu_kernels/bench/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace hearth::bench {
namespace {

// Every value name once, in the order in which rows bring them.
std::vector<std::string> columns_of(const Table& table) {
  std::vector<std::string> columns;
  for (const Row& row : table.rows) {
    for (const auto& [name, value] : row.values) {
      if (std::ranges::find(columns, name) == columns.end()) columns.push_back(name);
    }
  }
  return columns;
}

std::string cell(const Row& row, const std::string& column) {
  const auto found = std::ranges::find(row.values, column, &std::pair<std::string, double>::first);
  if (found == row.values.end()) return "";
  return fmt::format("{:.{}f}", found->second, found->second < 10 ? 3 : 1);
}

}  // namespace

std::string as_text(const Table& table) {
  constexpr size_t kValueWidth = 10;
  size_t width = 4;
  for (const Row& row : table.rows) width = std::max(width, row.what.size());
  const std::vector<std::string> columns = columns_of(table);
  std::string text =
      fmt::format("\n{}\n{:<{}} {:>8} {:>5}", table.name, "what", width, "type", "n");
  for (const std::string& column : columns)
    text += fmt::format(" {:>{}}", column, std::max(column.size(), kValueWidth));
  text += '\n';
  for (const Row& row : table.rows) {
    text += fmt::format("{:<{}} {:>8} {:>5}", row.what, width, row.type,
                        row.n > 0 ? std::to_string(row.n) : "");
    for (const std::string& column : columns)
      text += fmt::format(" {:>{}}", cell(row, column), std::max(column.size(), kValueWidth));
    text += '\n';
  }
  for (const std::string& note : table.notes) text += note + '\n';
  return text;
}

nlohmann::ordered_json as_json(const Table& table) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Row& row : table.rows) {
    nlohmann::ordered_json entry = {{"what", row.what}};
    if (!row.type.empty()) entry["type"] = row.type;
    if (row.n > 0) entry["n"] = row.n;
    for (const auto& [name, value] : row.values) entry[name] = value;
    rows.push_back(std::move(entry));
  }
  return {{"rows", std::move(rows)}, {"notes", table.notes}};
}

}  // namespace hearth::bench
