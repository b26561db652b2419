// Scores of compressed entries and the best of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "gpu_kernels/caches.h"

using namespace hearth;
using namespace hearth::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kRatio = 4;

struct ScoreCase {
  int32_t heads, dim;
  KvType type;
  std::vector<GpuRow> rows;
  std::vector<CacheRows> keys;
  Floats q, weights;
  float scale = 0.03f;
  int64_t stride = 150;

  ScoreCase(int32_t h, int32_t d, KvType t) : heads(h), dim(d), type(t) {
    rows = {{2, 0, 0}, {3, 0, 0}, {4 * 64 - 1, 0, 1}, {4 * 64 + 3, 0, 0}, {555, 0, 1}};
    q = random_floats(rows.size() * heads * dim, 1);
    weights = random_floats(rows.size() * heads, 2);
    for (int s = 0; s < 2; ++s) {
      keys.emplace_back(type, stride, dim);
      // No more than what some row sees.
      for (int64_t e = 0; e < (s == 0 ? 65 : 139); ++e)
        keys[s].set(e, random_floats(dim, static_cast<uint32_t>(e * 2 + s)).data());
    }
  }

  int64_t visible(size_t i) const { return (rows[i].position + 1) / kRatio; }

  Floats run(const std::vector<int32_t>& which, uint64_t seed) const {
    Gpu gpu(seed);
    std::vector<GpuSequenceCache> caches;
    for (const CacheRows& own : keys) {
      caches.push_back({.window = nullptr,
                        .window_slots = 1,
                        .entries = {},
                        .index = {gpu.upload(own.bytes()), nullptr}});
    }
    std::vector<GpuRow> batch;
    Floats own_q, own_weights;
    int64_t most = 0;
    for (const int32_t i : which) {
      batch.push_back(rows[i]);
      most = std::max(most, visible(i));
      own_q.insert(own_q.end(), q.begin() + i * heads * dim, q.begin() + (i + 1) * heads * dim);
      own_weights.insert(own_weights.end(), weights.begin() + i * heads,
                         weights.begin() + (i + 1) * heads);
    }
    const int64_t n = std::ssize(which);
    float* scores = gpu.upload(Floats(n * stride, -7.0f));
    gpu.kernels().index_scores({.q = gpu.upload(own_q),
                                .head_weights = gpu.upload(own_weights),
                                .rows = gpu.upload(batch),
                                .caches = gpu.upload(caches),
                                .kv_type = type,
                                .n = n,
                                .heads = heads,
                                .dim = dim,
                                .scale = scale,
                                .ratio = kRatio,
                                .entries_max = most,
                                .scores = scores,
                                .scores_stride = stride},
                               gpu.stream());
    return gpu.download(scores, n * stride);
  }

  Floats expected() const {
    Floats scores(rows.size() * stride, -7.0f);
    for (size_t i = 0; i < rows.size(); ++i) {
      const Floats own = keys[rows[i].sequence].floats();
      for (int64_t e = 0; e < visible(i); ++e) {
        double score = 0;
        for (int32_t h = 0; h < heads; ++h) {
          double dot = 0;
          for (int32_t d = 0; d < dim; ++d)
            dot += static_cast<double>(q[(i * heads + h) * dim + d]) * own[e * dim + d];
          score += static_cast<double>(weights[i * heads + h]) * scale * std::max(dot, 0.0);
        }
        scores[i * stride + e] = static_cast<float>(score);
      }
    }
    return scores;
  }
};

struct Chosen {
  std::vector<int32_t> selected, counts;
};

// -1 stands where nothing was written.
Chosen select_on_device(const Floats& scores, int64_t stride, const std::vector<int64_t>& visible,
                        int32_t top_k, uint64_t seed) {
  Gpu gpu(seed);
  std::vector<GpuRow> rows;
  for (const int64_t count : visible) rows.push_back({count * kRatio + kRatio - 2, 0, 0});
  const int64_t n = std::ssize(rows);
  int32_t* selected = gpu.upload(std::vector<int32_t>(n * top_k, -1));
  int32_t* counts = gpu.allocate<int32_t>(n);
  gpu.kernels().select_top_k({.scores = gpu.upload(scores),
                              .scores_stride = stride,
                              .rows = gpu.upload(rows),
                              .n = n,
                              .ratio = kRatio,
                              .top_k = top_k,
                              .selected = selected,
                              .counts = counts},
                             gpu.stream());
  return {gpu.download(selected, n * top_k), gpu.download(counts, n)};
}

std::vector<int32_t> best(const float* scores, int64_t visible, int32_t top_k) {
  std::vector<int32_t> order(visible);
  std::iota(order.begin(), order.end(), 0);
  auto value = [&](int32_t e) {
    const float lowest = std::numeric_limits<float>::lowest();
    return scores[e] >= lowest ? scores[e] : lowest;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return value(a) > value(b); });
  order.resize(std::min<int64_t>(visible, top_k));
  std::sort(order.begin(), order.end());
  return order;
}

void check_selection(const Floats& scores, int64_t stride, const std::vector<int64_t>& visible,
                     int32_t top_k, uint64_t seed) {
  CAPTURE(top_k);
  const Chosen chosen = select_on_device(scores, stride, visible, top_k, seed);
  for (size_t i = 0; i < visible.size(); ++i) {
    std::vector<int32_t> expected = best(scores.data() + i * stride, visible[i], top_k);
    CHECK(chosen.counts[i] == std::ssize(expected));
    expected.resize(top_k, -1);
    const auto* own = chosen.selected.data() + i * top_k;
    CHECK(std::vector<int32_t>(own, own + top_k) == expected);
  }
}

}  // namespace

TEST_CASE("index_scores: heads and widths of any kind") {
  for (const auto& [heads, dim] : {std::pair{1, 8}, {5, 12}, {8, 40}, {64, 128}, {70, 33}}) {
    for (const KvType type : {KvType::kF32, KvType::kBF16}) {
      CAPTURE(heads);
      CAPTURE(dim);
      const ScoreCase c(heads, dim, type);
      const Floats scores = c.run({0, 1, 2, 3, 4}, dim);
      CHECK(max_difference(scores, c.expected()) < 1e-5);
      const Floats one = c.run({3}, 5);
      CHECK(std::memcmp(one.data(), &scores[3 * c.stride], one.size() * 4) == 0);
    }
  }
}

TEST_CASE("select_top_k: all there are, up to top_k") {
  const Floats scores = random_floats(3 * 40, 1);
  check_selection(scores, 40, {0, 7, 8}, 8, 1);
}

TEST_CASE("select_top_k: the best of many, ascending") {
  const int64_t stride = 5003;
  const Floats scores = random_floats(4 * stride, 2);
  for (const int32_t top_k : {1, 2, 31, 512}) {
    check_selection(scores, stride, {top_k + 1, 1024, 4999, stride}, top_k, top_k);
  }
}

TEST_CASE("select_top_k: of equal scores the lower entry, whatever the sign of zero") {
  const int64_t n = 2500;
  Floats scores(4 * n, 0.0f);
  std::mt19937 random(3);
  for (int64_t e = 0; e < n; ++e) {
    scores[e] = random() % 2 == 0 ? 0.0f : -0.0f;
    scores[n + e] = static_cast<float>(random() % 3);
    scores[2 * n + e] = random() % 16 == 0 ? 1.0f : 0.0f;
    scores[3 * n + e] = static_cast<float>(random() % 40) * -0.25f;
  }
  for (const int32_t top_k : {1, 100, 300, 2000})
    check_selection(scores, n, {n, n, n, n}, top_k, 4);
}

TEST_CASE("select_top_k: what does not compare is the lowest, infinity the highest") {
  const int64_t n = 1200;
  const float odd[] = {std::nanf(""),
                       -std::nanf(""),
                       -kInfinity,
                       kInfinity,
                       std::numeric_limits<float>::lowest(),
                       std::numeric_limits<float>::max(),
                       1e-45f,
                       -1e-45f};
  Floats scores = random_floats(2 * n, 5);
  for (int64_t e = 0; e < 2 * n; ++e) {
    if (e >= n || e % 2 == 0) scores[e] = odd[e / 2 % 8];
  }
  for (const int32_t top_k : {3, 150, 700, 1199}) check_selection(scores, n, {n, n - 1}, top_k, 6);
}

TEST_CASE("select_top_k: as many entries as the longest context has") {
  const int64_t n = 262144;
  check_selection(random_floats(n, 7), n, {n}, 1024, 7);
}

TEST_CASE("no rows, no work in attention") {
  Gpu gpu;
  gpu.kernels().rope_angles({}, gpu.stream());
  gpu.kernels().attention({}, gpu.stream());
  gpu.kernels().append_entries({}, gpu.stream());
  gpu.kernels().index_scores({}, gpu.stream());
  gpu.kernels().select_top_k({}, gpu.stream());
}
