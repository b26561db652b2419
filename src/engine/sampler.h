// Logits to the next token: penalties, temperature, top-k, top-p, min-p, a seeded draw.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "cpu_kernels/kernels.h"
#include "model/logit_row.h"

namespace hearth {

struct SamplingOptions {
  float temperature = 1.0f;  // 0: the largest logit, always the same answer
  int32_t top_k = 0;         // keep the k likeliest; 0: all
  float top_p = 1.0f;        // keep the likeliest that together reach p
  float min_p = 0.0f;        // keep those at least min_p times as likely as the likeliest
  float repetition_penalty =
      1.0f;  // divides positive logits of seen tokens, multiplies negative ones
  float presence_penalty = 0.0f;   // subtracted once from the logit of a generated token
  float frequency_penalty = 0.0f;  // subtracted for each time a token was generated
  uint64_t seed = 0;

  // Throws a usage Error naming every value out of range.
  void check() const;
};

class Sampler {
 public:
  Sampler(const SamplingOptions& options, const Kernels& kernels);

  // The next token, given the tokens of the answer so far. Lower ids win ties; NaN logits never
  // win. Of a row, what it asks for depends on the options: penalties take all of it.
  int32_t sample(LogitRow& row, std::span<const int32_t> answer);
  int32_t sample(std::span<const float> logits, std::span<const int32_t> answer);

 private:
  struct Candidate {
    int32_t token;
    float logit;
    float weight;
  };
  // An order without ties.
  static bool is_likelier(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }

  bool has_penalties() const;
  void penalize(std::span<const float> logits, std::span<const int32_t> answer);
  int32_t pick(LogitRow& row);
  void terms_of(std::span<const float> logits, float* terms) const;
  int32_t draw_from_all(LogitRow& row);

  void gather_likeliest(LogitRow& row);
  void gather_from(LogitRow& row, float least_weight);
  bool are_enough(float least_weight) const;
  void cut_to_top_k();
  void cut_to_min_p();
  void cut_to_top_p();
  int32_t draw_from_candidates();
  double draw_below(double total);

  SamplingOptions options_;
  const Kernels& kernels_;
  std::mt19937_64 random_;
  HostLogitRow host_row_;
  std::vector<float> penalized_;  // logits
  float largest_ = 0;             // logit
  float steepness_ = 1;  // of weights over logits: weight = exp((logit - largest) * steepness)
  // Of the weights, by block of tokens. A draw from all keeps no more: logits come out of memory
  // once a step, and weights would go there.
  std::vector<float> block_sums_;
  double total_ = 0;  // of the weights that cuts leave to top-p
  std::vector<Candidate> candidates_;
};

}  // namespace hearth
