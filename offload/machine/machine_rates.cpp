#include "offload/machine/machine_rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/check.h"
#include "offload/machine/machine_fields.h"
#include "offload/machine/timing.h"

namespace hearth {
namespace {

// The places of all rates, in the order of the fields.
class RateList {
 public:
  static std::vector<double*> of(Machine& machine) {
    RateList list;
    fields(list, machine);
    return std::move(list.rates_);
  }

  void text(const char*, const std::string&, bool = false) {}
  template <typename Integer>
  void count(const char*, Integer, int64_t) {}
  void rate(const char*, double& value, bool = false) { rates_.push_back(&value); }
  template <typename T>
  void object(const char*, T& value) {
    fields(*this, value);
  }
  template <typename T>
  void list(const char* key, std::vector<T>& values, size_t) {
    for (T& value : values) {
      if constexpr (std::is_same_v<T, double>) {
        rate(key, value);
      } else if constexpr (!std::is_same_v<T, std::string>) {
        fields(*this, value);
      }
    }
  }

 private:
  std::vector<double*> rates_;
};

}  // namespace

void round_rates(Machine& machine) {
  for (double* rate : RateList::of(machine)) {
    *rate = std::strtod(fmt::format("{:.4g}", *rate).c_str(), nullptr);
  }
}

Machine median_of(std::span<const Machine> machines) {
  HEARTH_CHECK(!machines.empty());
  std::vector<Machine> copies(machines.begin(), machines.end());
  std::vector<std::vector<double*>> rates;
  for (Machine& machine : copies) rates.push_back(RateList::of(machine));
  for (const auto& list : rates) HEARTH_CHECK(list.size() == rates.front().size());
  for (size_t i = 0; i < rates.front().size(); ++i) {
    std::vector<double> values;
    for (const auto& list : rates) values.push_back(*list[i]);
    *rates.front()[i] = median(std::move(values));
  }
  return std::move(copies.front());
}

}  // namespace hearth
