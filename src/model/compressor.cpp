// Compressed cache entries: windows of 4 (overlapping, CSA and the indexer) or 128 (HCA) tokens
// become one row. Entries that a chunk completes are independent of each other; what they need from
// earlier calls is carried.
#include <algorithm>
#include <array>
#include <cstring>

#include "model/step.h"

namespace hearth {
namespace {

constexpr int32_t kTokensMax = 128;  // tokens one entry mixes: 128 (HCA) or two windows of 4

// One segment's part of the batch, seen from one compressor.
struct Run {
  const Step& step;
  const CompressorWeights& weights;
  const CompressedCache& cache;
  const float* inputs;  // [tokens of the segment, 2, lanes]
  int64_t first;        // position of the first token
  int64_t end;          // position after the last one
};

// The projected value of a token, from this chunk or carried; its gate lies `lanes` floats behind.
const float* projected(const Run& run, int64_t position) {
  if (position < run.first) return run.cache.carried_value(position);
  return run.inputs + (position - run.first) * 2 * run.cache.lanes;
}

// The softmax over the tokens of entry e: its window, and the window before where they overlap.
void mix_entry(const Run& run, int64_t e, float* out) {
  const CompressedCache& cache = run.cache;
  const bool overlapping = cache.lanes != cache.width;
  std::array<const float*, kTokensMax> values, gates, biases;
  int32_t n = 0;
  auto add_window = [&](int64_t window, int32_t lane) {
    for (int32_t j = 0; j < cache.ratio; ++j, ++n) {
      values[n] = projected(run, window * cache.ratio + j) + lane;
      gates[n] = values[n] + cache.lanes;
      biases[n] = run.weights.ape.data() + j * cache.lanes + lane;
    }
  };
  if (overlapping && e > 0) add_window(e - 1, 0);
  add_window(e, overlapping ? cache.width : 0);
  run.step.compute.kernels.compress({.values = values.data(),
                                     .gates = gates.data(),
                                     .biases = biases.data(),
                                     .n = n,
                                     .width = cache.width,
                                     .out = out});
}

void finish_entry(const Run& run, int64_t e, KvType type, float* row) {
  const Step& step = run.step;
  const Kernels& kernels = step.compute.kernels;
  const CompressedCache& cache = run.cache;
  mix_entry(run, e, row);
  kernels.rms_norm(row, run.weights.norm.data(), step.config.rms_eps, 1, cache.width, row);
  std::array<float, kRopeDimMax / 2> cosines, sines;
  step.rope_compressed.angles(e * cache.ratio, cosines.data(), sines.data());
  kernels.rope({.x = row,
                .heads = 1,
                .dim = cache.width,
                .rope_dim = step.config.rope_dim,
                .cosines = cosines.data(),
                .sines = sines.data()});
  kernels.store_kv(row, cache.width, type, const_cast<unsigned char*>(cache.row(e, type)));
}

// Keeps the tokens that later entries still need.
void carry_tokens(const Run& run) {
  const int64_t kept = std::max(run.first, run.end - run.cache.carry_slots);
  for (int64_t position = kept; position < run.end; ++position) {
    std::memcpy(run.cache.carried_value(position), projected(run, position),
                2 * run.cache.lanes * sizeof(float));
  }
}

}  // namespace

void append_entries(Step& step, int32_t layer, const CompressorWeights& weights,
                    const float* inputs, CompressedCache LayerCache::*which) {
  const int64_t row_floats = std::max(step.config.head_dim, step.config.index_dim);
  for (size_t s = 0; s < step.batch.segments.size(); ++s) {
    const Segment& segment = step.batch.segments[s];
    const CompressedCache& cache = segment.cache->layer(layer).*which;
    const int64_t first = segment.cache->position;
    const Run run{step,  weights,
                  cache, inputs + static_cast<int64_t>(step.batch.first_rows[s]) * 2 * cache.lanes,
                  first, first + std::ssize(segment.tokens)};
    const int64_t first_entry = run.first / cache.ratio;
    step.compute.workers.for_range(
        run.end / cache.ratio - first_entry, 1, [&](int64_t begin, int64_t end, int thread) {
          float* row = step.act.thread_row.as<float>() + thread * row_floats;
          for (int64_t e = begin; e < end; ++e) {
            finish_entry(run, first_entry + e, segment.cache->type(), row);
          }
        });
    carry_tokens(run);
  }
}

}  // namespace hearth
