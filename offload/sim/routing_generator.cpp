#include "offload/sim/routing_generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace hearth {
namespace {

constexpr double kTwo32 = 4294967296.0;

// e^x for |x| < 100, of additions and multiplications alone: those are the same everywhere, the
// mathematical library isn't.
double plain_exp(double x) {
  const double y = x / 4096;
  double result = 1 + y * (1 + y / 2 * (1 + y / 3 * (1 + y / 4)));
  for (int i = 0; i < 12; ++i) result *= result;
  return result;
}

void check(const RoutingModel& m) {
  const auto in = [](double value, double least, double most) {
    return value >= least && value <= most;  // false for what is not a number
  };
  if (!is_trace_shape(m.layers, m.experts, m.used)) {
    throw usage_error(fmt::format("{} layers of {} experts, {} used, can't be drawn", m.layers,
                                  m.experts, m.used),
                      "routing model", "Use the numbers of a real model");
  }
  const bool sane = m.hash_layers >= 0 && m.subjects >= 1 && m.subjects <= 4096 &&
                    in(m.spread, 0, 4) && in(m.hash_spread, 0, 4) && in(m.subject_spread, 0, 4) &&
                    in(m.stay_tokens, 0, 1e9) && in(m.recency, 0, 0.99) &&
                    in(m.reach_tokens, 1, 1e4);
  if (!sane) {
    throw usage_error("a setting is out of range", "routing model",
                      "Spreads are 0 to 4, recency 0 to 0.99, reach_tokens 1 to 10000");
  }
}

}  // namespace

RoutingModel flash_routing() { return routing_like_flash(43, 256, 6); }

RoutingModel flash41_routing() {
  return {.layers = 4,
          .experts = 384,
          .used = 6,
          .spread = 1.2,
          .subjects = 16,
          .subject_spread = 1.0,
          .recency = 0.4,
          .reach_tokens = 12};
}

RoutingModel routing_like_flash(int32_t layers, int32_t experts, int32_t used) {
  return {.layers = layers,
          .experts = experts,
          .used = used,
          .spread = 0.66,
          .hash_layers = 3,
          .hash_spread = 0.33,
          .subjects = 16,
          .subject_spread = 1.1,
          .stay_tokens = 1000,
          .recency = 0.6,
          .reach_tokens = 6};
}

RoutingModel random_routing(int32_t layers, int32_t experts, int32_t used) {
  return {.layers = layers, .experts = experts, .used = used, .reach_tokens = 1};
}

uint32_t RoutingRandom::below(uint32_t n) {
  return static_cast<uint32_t>(((bits_() >> 32) * n) >> 32);
}

double RoutingRandom::uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }

double RoutingRandom::normal() {
  int64_t sum = 0;
  for (int i = 0; i < 3; ++i) {
    for (uint64_t bits = bits_(), part = 0; part < 4; ++part, bits >>= 16) sum += bits & 0xffff;
  }
  return static_cast<double>(sum) * 0x1p-16 - 6 + 6 * 0x1p-16;
}

RoutingGenerator::RoutingGenerator(const RoutingModel& model, uint64_t seed)
    : model_(model), random_(seed) {
  check(model_);
  draw_popularity();
  draw_factors();
  make_reach();
  columns_.resize(model_.subjects);
}

void RoutingGenerator::draw_popularity() {
  popularity_.resize(static_cast<size_t>(model_.layers) * model_.experts);
  for (int32_t layer = 0; layer < model_.layers; ++layer) {
    const double spread = layer < model_.hash_layers ? model_.hash_spread : model_.spread;
    double* row = popularity_.data() + static_cast<int64_t>(layer) * model_.experts;
    double sum = 0;
    for (int32_t e = 0; e < model_.experts; ++e) {
      sum += row[e] = plain_exp(spread * random_.normal());
    }
    for (int32_t e = 0; e < model_.experts; ++e) row[e] /= sum;
  }
}

void RoutingGenerator::draw_factors() {
  const size_t pairs = popularity_.size();
  factors_.resize(pairs * model_.subjects);
  std::vector<double> sums(pairs, 0.0);
  for (int32_t s = 0; s < model_.subjects; ++s) {
    for (size_t i = 0; i < pairs; ++i) {
      const double factor = plain_exp(model_.subject_spread * random_.normal());
      factors_[s * pairs + i] = static_cast<float>(factor);
      sums[i] += factor;
    }
  }
  for (int32_t s = 0; s < model_.subjects; ++s) {
    for (size_t i = 0; i < pairs; ++i) {
      factors_[s * pairs + i] *= static_cast<float>(model_.subjects / sums[i]);
    }
  }
}

const std::vector<RoutingGenerator::Column>& RoutingGenerator::columns_of(int32_t subject) {
  std::vector<Column>& columns = columns_[subject];
  if (!columns.empty()) return columns;
  const int32_t experts = model_.experts;
  columns.resize(popularity_.size());
  std::vector<double> height(experts);
  std::vector<int32_t> low, high;  // columns with room, columns with too much
  for (int32_t layer = 0; layer < model_.layers; ++layer) {
    const int64_t first = static_cast<int64_t>(layer) * experts;
    const float* factors = factors_.data() + subject * popularity_.size() + first;
    double sum = 0;
    for (int32_t e = 0; e < experts; ++e) sum += height[e] = popularity_[first + e] * factors[e];
    low.clear();
    high.clear();
    for (int32_t e = 0; e < experts; ++e) {
      height[e] *= experts / sum;
      (height[e] < 1 ? low : high).push_back(e);
      columns[first + e] = {UINT32_MAX, static_cast<uint32_t>(e)};
    }
    while (!low.empty() && !high.empty()) {
      const int32_t e = low.back(), giver = high.back();
      low.pop_back();
      columns[first + e] = {static_cast<uint32_t>(height[e] * kTwo32),
                            static_cast<uint32_t>(giver)};
      height[giver] -= 1 - height[e];
      if (height[giver] >= 1) continue;
      high.pop_back();
      low.push_back(giver);
    }
  }
  return columns;
}

void RoutingGenerator::make_reach() {
  constexpr size_t kEntries = 4096;
  const double stays = 1 - 1 / model_.reach_tokens;  // chance to go one more token back
  double beyond = 1;                                 // chance to go farther back than `tokens`
  for (uint16_t tokens = 1; reach_.size() < kEntries; ++tokens) {
    beyond *= stays;
    const auto until = static_cast<size_t>((1 - beyond) * kEntries + 0.5);
    reach_.resize(std::max(reach_.size(), until), tokens);
    if (beyond * kEntries < 0.5) reach_.resize(kEntries, tokens);
  }
}

uint32_t RoutingGenerator::draw(const Column* columns) {
  const uint32_t at = random_.below(model_.experts);
  const Column& column = columns[at];
  return random_.below(UINT32_MAX) < column.threshold ? at : column.other;
}

void RoutingGenerator::append(RoutingTrace& trace, int64_t first, int64_t token) {
  constexpr int kTries = 64;  // for a pick the token doesn't have yet
  const std::vector<Column>& columns = columns_of(subject_);
  const auto repeats = static_cast<uint32_t>(model_.recency * kTwo32);
  const int32_t used = model_.used;
  for (int32_t layer = 0; layer < model_.layers; ++layer) {
    uint16_t* picks = trace.picks.data() + (token * model_.layers + layer) * used;
    const Column* row = columns.data() + static_cast<int64_t>(layer) * model_.experts;
    for (int32_t i = 0; i < used; ++i) {
      const auto taken = [&](uint32_t e) { return std::find(picks, picks + i, e) != picks + i; };
      uint32_t pick = 0;
      int tries = 0;
      do {
        const uint32_t back = reach_[random_.below(static_cast<uint32_t>(reach_.size()))];
        const bool repeat = random_.below(UINT32_MAX) < repeats && token - back >= first;
        pick = repeat ? trace.at(token - back, layer)[random_.below(used)] : draw(row);
      } while (taken(pick) && ++tries < kTries);
      // A popularity that leaves the rest no chance: take the next in order.
      while (taken(pick)) pick = (pick + 1) % model_.experts;
      picks[i] = static_cast<uint16_t>(pick);
    }
  }
}

RoutingTrace RoutingGenerator::generate(std::span<const int64_t> sequences) {
  RoutingTrace trace = {
      model_.layers, model_.experts, model_.used, {sequences.begin(), sequences.end()}, {}};
  trace.picks.resize(trace.tokens() * model_.layers * model_.used);
  int64_t first = 0;
  for (const int64_t tokens : sequences) {
    subject_ = static_cast<int32_t>(random_.below(model_.subjects));
    for (int64_t t = first; t < first + tokens; ++t) {
      if (model_.stay_tokens > 0 && random_.uniform() * model_.stay_tokens < 1) {
        subject_ = static_cast<int32_t>(random_.below(model_.subjects));
      }
      append(trace, first, t);
    }
    first += tokens;
  }
  return trace;
}

}  // namespace hearth
