// Results as a person reads them and as programs do.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace hearth::bench {

struct Row {
  std::string what;
  std::string type;                                    // of the weights; empty where there are none
  int64_t n;                                           // tokens; 0 where there are none
  std::vector<std::pair<std::string, double>> values;  // named after their units
};

struct Table {
  std::string name;
  std::vector<Row> rows;
  std::vector<std::string> notes;
};

// In columns, a line a row, notes behind them.
std::string as_text(const Table& table);
// {"rows": [{"what", "type", "n", value names...}], "notes": [...]}
nlohmann::ordered_json as_json(const Table& table);

}  // namespace hearth::bench
