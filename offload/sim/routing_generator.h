// Draws routing traces that behave like those of real models, for machines and models that are not
// here. The figures it is fitted to stand at the settings below.
//
// The model. A text belongs to one of `subjects` subjects at a time. Each layer has a popularity of
// its experts over all text, log-normal with `spread`; a subject multiplies it by log-normal
// factors of its own (`subject_spread`), made so that the subjects' average is the popularity of
// all text. Each pick of a token is, with probability `recency`, one that the same layer made a few
// tokens earlier in the sequence (1 token or more, `reach_tokens` on average, geometric), else a
// fresh draw from the subject's popularity; no expert twice. Repeating keeps popularity as it is
// and brings the recency that an LRU cache lives on. Hash-routed layers differ in their spread
// alone.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "offload/sim/routing_trace.h"

namespace hearth {

struct RoutingModel {
  int32_t layers = 0;
  int32_t experts = 0;
  int32_t used = 0;
  double spread = 0;        // standard deviation of log popularity over all text
  int32_t hash_layers = 0;  // the first layers, routed by token id,
  double hash_spread = 0;   // with a spread of their own
  int32_t subjects = 1;
  double subject_spread = 0;  // standard deviation of the log of a subject's factors
  double stay_tokens = 0;     // mean tokens until the subject changes inside a sequence; 0: never
  double recency = 0;         // share of picks that repeat, 0 to below 1
  double reach_tokens = 0;
};

// V4-Flash, 43 layers of 256 experts, 6 used. Over text of all subjects the most frequent 4.6, 10,
// 13, 25 and 50 % of the pairs serve 14.7, 25.0, 29.9, 46.3 and 71.8 % of the picks (counted on the
// model); in one text an LRU cache of 12 and 25 % serves 65 and 81 % (seen in engines).
RoutingModel flash_routing();
// The first 4 layers of V4.1-Flash, 384 experts, as counted on 50 short texts.
RoutingModel flash41_routing();
// The habits of V4-Flash in another shape.
RoutingModel routing_like_flash(int32_t layers, int32_t experts, int32_t used);

// Every expert as often as the others, without habits: what random weights choose.
RoutingModel random_routing(int32_t layers, int32_t experts, int32_t used);

// Uniform numbers, the same on every machine: std::mt19937_64 is specified to the bit, the
// distributions of the standard library are not.
class RoutingRandom {
 public:
  explicit RoutingRandom(uint64_t seed) : bits_(seed) {}
  uint32_t below(uint32_t n);  // 0 to n - 1
  double uniform();            // 0 to below 1
  double normal();             // mean 0, deviation 1; a sum of twelve, so within +-6

 private:
  std::mt19937_64 bits_;
};

// Draws sequences one after another; the same model and seed give the same picks on every machine.
class RoutingGenerator {
 public:
  // Throws a usage Error for a model that makes no sense.
  RoutingGenerator(const RoutingModel& model, uint64_t seed);

  // One sequence each of so many tokens, each of a subject drawn for it.
  RoutingTrace generate(std::span<const int64_t> sequences);

  // Popularity over all text [layers * experts]; a layer's sum is 1.
  const std::vector<double>& popularity() const { return popularity_; }

 private:
  // How to draw one of a layer's experts in two steps: a column, then it or its other.
  struct Column {
    uint32_t threshold;  // below it: the column itself
    uint32_t other;
  };

  void draw_popularity();
  void draw_factors();
  const std::vector<Column>& columns_of(int32_t subject);
  void make_reach();
  void append(RoutingTrace& trace, int64_t first, int64_t token);
  uint32_t draw(const Column* columns);

  RoutingModel model_;
  RoutingRandom random_;
  std::vector<double> popularity_;
  std::vector<float> factors_;                // [subjects][layers * experts]
  std::vector<std::vector<Column>> columns_;  // [subjects][layers * experts], made when needed
  std::vector<uint16_t> reach_;               // tokens back, one entry for each equal chance
  int32_t subject_ = 0;
};

}  // namespace hearth
