// Random models of true width, for measuring speed and streaming where no released model is at
// hand. They are whole GGUF files of architecture deepseek4 that other engines load too; what they
// say is noise.
//
// Weights. Matrices have mean 0 and variance 1 / inputs; those that write into the streams
// (attn_output_b, ffn_down) are smaller by sqrt(layers), so that the streams stay between 1 and 2
// in the root mean square at any depth. Norm gains are 1 +- 0.1; hyper-connections, compressors,
// indexer and sinks are drawn so that every step of a layer matters.
//
// Formats. Routed experts have `quant`, attention and shared experts `dense`; embedding and output
// matrix are Q8_0, compressors and indexer F16, the rest F32. At every depth only layer 0 is
// hash-routed; it sends each token to experts drawn evenly.
//
// Popularity. A skew S > 0 cuts the vocabulary into kSynthTokenRanges ranges of ids. The embedding
// of a token is then sqrt(1 - c^2) times a vector of its own plus c times a vector of signs that
// its range shares, c^2 = S^2 / (S^2 + 0.4). Each random row of a router has a projection of its
// own onto that vector, so each range has its popular experts, and a text that moves through the
// ranges moves the hot set. exp_probs_b adds what all ranges agree on: N(0, (S / 2)^2) in units of
// log popularity at the threshold of the top-k. With S = 0.6, in all layers but layer 0: over
// tokens from all ranges the most popular 13 % of experts serve 31 % of picks and 50 % serve 76 %
// (V4-Flash on mixed text: 30 % and 72 %); within one range an LRU cache of 12 % serves 55 % and
// one of 25 % 82 % (engines report 65 % and 81 %).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace hearth {

// The dimensions of a model.
struct SynthShape {
  std::string name;
  int32_t layers;
  int32_t dim;
  int32_t heads;
  int32_t head_dim;
  int32_t rope_dim;
  int32_t q_rank;
  int32_t output_groups;
  int32_t output_rank;
  int32_t window;
  int32_t first_ratio;       // of the first layers; the others have 4, 128, 4, 128, ...
  int32_t first_layers = 1;  // that have first_ratio
  int32_t hash_layers = 1;   // the first layers, routed by token id
  int32_t index_heads;
  int32_t index_dim;
  int32_t index_top_k;
  int32_t experts;
  int32_t experts_used;
  int32_t expert_dim;
  float expert_scale;
  float clamp;
  int32_t streams;
  int32_t sinkhorn_iterations;
  int32_t vocab;
  int64_t context;
};

SynthShape flash_shape();
SynthShape pro_shape();
// As released: two first layers, three hash-routed ones. The shapes above have one of each, so that
// three layers hold every kind.
SynthShape released_shape(SynthShape shape);
// The compress ratio of a layer.
int32_t synth_ratio(const SynthShape& shape, int32_t layer);

// What stands in the file as zeros that take no space on disk.
enum class SynthHoles {
  kNone,
  kRoutedExperts,
  kAll,  // a file to open and to plan with, not to run
};

struct SynthOptions {
  SynthShape shape = flash_shape();
  int32_t layers = 0;           // 0: all of the shape
  int32_t experts = 0;          // a layer; 0: all of the shape
  std::string quant = "mxfp4";  // any weight format, or q2: gate and up IQ2_XXS, down Q2_K
  std::string dense = "q8_0";   // any weight format
  SynthHoles holes = SynthHoles::kNone;
  double skew = 0;  // 0 (experts about equally popular) to 4
  uint64_t seed = 1;
  int threads = 1;
  std::filesystem::path vocabulary;  // a model whose tokenizer it gets; unused tokens are added;
                                     // empty: none
  std::filesystem::path out;         // empty where nothing is written: then fp8 is a format too
};

constexpr int32_t kSynthTokenRanges = 16;
// The range of a token id.
int32_t synth_token_range(int64_t token, int32_t vocab);

// Writes the file `options.out`, overwriting one that is there; the bytes depend on nothing but the
// options that describe the model. Holds less than 128 MiB. Throws a usage Error for options that
// make no model, an Error where the disk has too little space or fails; then no partial file is
// left. `on_progress`, where given, hears how many bytes of how many are on their way to the disk.
void write_synth(const SynthOptions& options,
                 const std::function<void(int64_t done, int64_t total)>& on_progress = {});

}  // namespace hearth
