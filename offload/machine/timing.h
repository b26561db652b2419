// Rates over passes. Bandwidths are taken as they are typically, by the median; arithmetic, which
// other programs can only slow down, by the best.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace hearth {

template <typename F>
double seconds_of(F&& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Work per second of the passes that fit into `budget` seconds, at least three. `pass` does some
// work and returns how much.
template <typename F>
std::vector<double> rates_of_passes(double budget, F&& pass) {
  constexpr size_t kPassesMin = 3;
  std::vector<double> rates;
  for (double spent = 0; spent < budget || rates.size() < kPassesMin;) {
    double work = 0;
    const double seconds = std::max(seconds_of([&] { work = pass(); }), 1e-9);
    rates.push_back(work / seconds);
    spent += seconds;
  }
  return rates;
}

template <typename F>
double median_rate(double budget, F&& pass) {
  return median(rates_of_passes(budget, pass));
}

template <typename F>
double best_rate(double budget, F&& pass) {
  const std::vector<double> rates = rates_of_passes(budget, pass);
  return *std::max_element(rates.begin(), rates.end());
}

}  // namespace hearth
