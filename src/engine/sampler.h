// Logits to the next token: penalties, temperature, top-k, top-p, min-p, a seeded draw.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

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
  explicit Sampler(const SamplingOptions& options);

  // The next token, given the tokens of the answer so far. Lower ids win ties; NaN logits never
  // win.
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

  void load_candidates(std::span<const float> logits);
  void penalize(std::span<const int32_t> answer);
  void cut_to_top_k();
  double weigh_candidates();
  void cut_to_min_p();
  void cut_to_top_p(double total);
  int32_t draw();

  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<Candidate> candidates_;
};

}  // namespace hearth
