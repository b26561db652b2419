// Attention and the window's rows, against the CPU's reference table.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "format/dequantize.h"
#include "gpu_kernels/caches.h"

using namespace hearth;
using namespace hearth::test;

namespace {

enum class Entries { kNone, kAll, kSelected };

struct Shape {
  int32_t heads, dim, window, ratio, top_k;
  Entries entries;
};

// A batch and all that it reads. What no row of it may read is NaN.
struct Case {
  Shape shape;
  KvType type;
  std::vector<GpuRow> rows;
  int64_t slots;
  std::vector<CacheRows> windows, entries;  // [sequences]
  Floats q, sinks;
  std::vector<int32_t> selected, counts;

  int64_t width() const { return int64_t{shape.heads} * shape.dim; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(shape.dim)); }
  int64_t visible(const GpuRow& row) const {
    return shape.entries == Entries::kNone ? 0 : (row.position + 1) / shape.ratio;
  }

  Case(Shape s, KvType kv_type, std::vector<GpuRow> batch, uint32_t seed)
      : shape(s), type(kv_type), rows(std::move(batch)), slots(s.window + 7) {
    std::mt19937 random(seed);
    const int64_t n = std::ssize(rows);
    q = random_floats(n * width(), seed + 1, 1.5f);
    sinks = random_floats(s.heads, seed + 2, 3);
    if (s.heads > 1) sinks[1] = 40;
    selected.assign(n * std::max(s.top_k, 1), -1);
    for (int64_t i = 0; i < n; ++i) add_row(i, random);
  }

  void add_row(int64_t i, std::mt19937& random) {
    const GpuRow& row = rows[i];
    while (std::ssize(windows) <= row.sequence) {
      windows.emplace_back(type, slots, shape.dim);
      entries.emplace_back(type, 2000, shape.dim);
    }
    auto values = [&](int64_t number, uint32_t kind) {
      return random_floats(shape.dim, static_cast<uint32_t>(number * 64 + row.sequence * 2 + kind));
    };
    for (int64_t p = std::max<int64_t>(0, row.position - shape.window + 1); p <= row.position; ++p)
      windows[row.sequence].set(p % slots, values(p, 0).data());
    std::vector<int32_t> seen;
    for (int32_t e = 0; e < visible(row); ++e) seen.push_back(e);
    if (shape.entries == Entries::kSelected) {
      std::shuffle(seen.begin(), seen.end(), random);
      if (std::ssize(seen) > shape.top_k) seen.resize(shape.top_k);
      std::sort(seen.begin(), seen.end());
      std::copy(seen.begin(), seen.end(), selected.begin() + i * shape.top_k);
    }
    counts.push_back(static_cast<int32_t>(seen.size()));
    for (const int32_t e : seen) entries[row.sequence].set(e, values(e, 1).data());
  }

  Floats expected() const {
    Floats out(rows.size() * width());
    for (size_t i = 0; i < rows.size(); ++i) {
      const GpuRow& row = rows[i];
      std::vector<const void*> list;
      for (int64_t p = std::max<int64_t>(0, row.position - shape.window + 1); p <= row.position;
           ++p)
        list.push_back(windows[row.sequence].row(p % slots));
      for (int32_t e = 0; e < counts[i]; ++e) {
        const int32_t entry =
            shape.entries == Entries::kSelected ? selected[i * shape.top_k + e] : e;
        list.push_back(entries[row.sequence].row(entry));
      }
      reference().attention({.q = q.data() + i * width(),
                             .rows = list.data(),
                             .kv_type = type,
                             .n_rows = static_cast<int32_t>(list.size()),
                             .dim = shape.dim,
                             .head_begin = 0,
                             .head_end = shape.heads,
                             .sinks = sinks.data(),
                             .scale = scale(),
                             .scores = nullptr,
                             .out = out.data() + i * width()});
    }
    return out;
  }

  // What attention to the rows listed takes.
  GpuAttentionParams upload(Gpu& gpu, const std::vector<int32_t>& which, bool prefill) const {
    const int64_t n = std::ssize(which);
    std::vector<GpuRow> batch;
    std::vector<int32_t> own_selected, own_counts;
    Floats own_q;
    for (const int32_t i : which) {
      batch.push_back(rows[i]);
      own_counts.push_back(counts[i]);
      own_q.insert(own_q.end(), q.begin() + i * width(), q.begin() + (i + 1) * width());
      own_selected.insert(own_selected.end(), selected.begin() + i * shape.top_k,
                          selected.begin() + (i + 1) * shape.top_k);
    }
    std::vector<GpuSequenceCache> caches;
    for (size_t s = 0; s < windows.size(); ++s) {
      caches.push_back({.window = gpu.upload(windows[s].bytes()),
                        .window_slots = slots,
                        .entries = {gpu.upload(entries[s].bytes()), nullptr},
                        .index = {}});
    }
    const bool selects = shape.entries == Entries::kSelected;
    const int64_t floats = gpu.kernels().attention_scratch_floats(n, shape.heads, shape.dim);
    float* out = gpu.allocate<float>(n * width());
    return {.q = gpu.upload(own_q),
            .rows = gpu.upload(batch),
            .caches = gpu.upload(caches),
            .kv_type = type,
            .n = n,
            .heads = shape.heads,
            .dim = shape.dim,
            .window = shape.window,
            .ratio = shape.entries == Entries::kNone ? 0 : shape.ratio,
            .selected = selects ? gpu.upload(own_selected) : nullptr,
            .selected_count = selects ? gpu.upload(own_counts) : nullptr,
            .top_k = shape.top_k,
            .sinks = gpu.upload(sinks),
            .scale = scale(),
            .prefill = prefill,
            .scratch = prefill ? nullptr : gpu.allocate<float>(floats),
            .out = out,
            .cosines = nullptr,
            .sines = nullptr,
            .rope_dim = 0,
            .out_q = {}};
  }
  Floats run(const std::vector<int32_t>& which, bool prefill, uint64_t seed) const {
    Gpu gpu(seed);
    const GpuAttentionParams p = upload(gpu, which, prefill);
    gpu.kernels().attention(p, gpu.stream());
    return gpu.download(p.out, p.n * width());
  }
  std::vector<int32_t> all() const {
    std::vector<int32_t> numbers(rows.size());
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
  }
  Floats run(bool prefill, uint64_t seed) const { return run(all(), prefill, seed); }
};

// Positions before, at and after the ends of windows and entries, of two sequences.
std::vector<GpuRow> few_rows() {
  return {{0, 5, 0}, {1, 5, 0}, {2, 5, 0}, {14, 5, 1}, {15, 5, 1}, {16, 5, 1}};
}

}  // namespace

TEST_CASE("attention: heads and widths of any kind, windows, all entries, selected ones") {
  const Shape shapes[] = {
      {1, 8, 4, 0, 0, Entries::kNone},        {3, 20, 16, 4, 0, Entries::kAll},
      {4, 64, 5, 4, 3, Entries::kSelected},   {19, 34, 8, 2, 2, Entries::kSelected},
      {5, 256, 16, 4, 0, Entries::kNone},     {6, 264, 7, 2, 0, Entries::kAll},
      {17, 512, 8, 4, 2, Entries::kSelected}, {2, 500, 3, 1, 4, Entries::kSelected}};
  uint32_t seed = 0;
  for (const Shape& shape : shapes) {
    for (const KvType type : {KvType::kF32, KvType::kBF16}) {
      for (const bool prefill : {false, true}) {
        CAPTURE(shape.dim);
        CAPTURE(shape.heads);
        CAPTURE(prefill);
        const Case c(shape, type, few_rows(), seed++);
        CHECK(max_difference(c.expected(), c.run(prefill, seed)) < 3e-6);
      }
    }
  }
}

TEST_CASE("attention: long lists, in parts and in one go") {
  // 1: parts of least length; 1500: as many as there can be, the last one cut.
  for (const int64_t position : {20, 127, 128, 600, 1500}) {
    for (const Entries entries : {Entries::kAll, Entries::kSelected}) {
      const Shape shape = {3, 24, 100, 1, 400, entries};
      CAPTURE(position);
      const Case c(shape, KvType::kBF16, {{position, 0, 0}, {position / 2, 0, 1}}, 9);
      const Floats expected = c.expected();
      CHECK(max_difference(expected, c.run(false, 1)) < 3e-6);
      CHECK(max_difference(expected, c.run(true, 2)) < 3e-6);
    }
  }
}

TEST_CASE("attention: a result does not depend on the batch or the order of threads") {
  std::vector<GpuRow> rows;
  for (int32_t i = 0; i < 19; ++i) rows.push_back({i * 37 % 300, 0, i});
  const Case c({5, 20, 40, 2, 30, Entries::kSelected}, KvType::kBF16, rows, 4);
  const Floats all = c.run(false, 0);
  auto same = [&](const std::vector<int32_t>& which, uint64_t seed) {
    const Floats some = c.run(which, false, seed);
    for (size_t i = 0; i < which.size(); ++i) {
      if (std::memcmp(&some[i * c.width()], &all[which[i] * c.width()], c.width() * 4) != 0)
        return false;
    }
    return true;
  };
  CHECK(same({4}, 1));
  CHECK(same({18, 0, 18}, 2));
  CHECK(same({9, 8, 7, 6, 5, 4, 3, 2, 1}, 3));
}

TEST_CASE("attention: outputs lose their rotation and are rounded on the way out") {
  for (const int32_t dim : {64, 20, 512}) {
    // More rows than 8: in prefill the wider heads go to tensor cores.
    std::vector<GpuRow> rows = few_rows();
    for (int32_t i = 17; i < 21; ++i) rows.push_back({i, 5, 1});
    const Case c({3, dim, 9, 4, 0, Entries::kAll}, KvType::kBF16, rows, 7);
    const int64_t n = std::ssize(c.rows), pairs = 6;
    Floats cosines, sines;
    for (int i = 0; i < n * pairs; ++i) {
      cosines.push_back(std::cos(0.7f * static_cast<float>(i)));
      sines.push_back(std::sin(0.7f * static_cast<float>(i)));
    }
    for (const bool prefill : {false, true}) {
      CAPTURE(dim);
      CAPTURE(prefill);
      Gpu gpu(dim);
      GpuAttentionParams p = c.upload(gpu, c.all(), prefill);
      p.cosines = gpu.upload(cosines);
      p.sines = gpu.upload(sines);
      p.rope_dim = 2 * pairs;
      float* expected = gpu.upload(c.expected());
      gpu.kernels().rope({expected, n, 3, dim, p.rope_dim, p.cosines, p.sines, true}, gpu.stream());
      const auto take = [&](int64_t values) {
        return GpuRoundedRows{gpu.allocate<int8_t>(values), gpu.allocate<float>(values / 32),
                              gpu.allocate<float>(values / 16)};
      };
      const int64_t values = n * c.width();
      const bool rounds = !prefill && dim % 32 == 0;
      if (rounds) p.out_q = take(values);
      gpu.kernels().attention(p, gpu.stream());
      const double difference =
          max_difference(gpu.download(expected, values), gpu.download(p.out, values));
      CHECK(difference < (prefill ? 5e-2 : 3e-6));
      if (!rounds) continue;
      const GpuRoundedRows rounded = take(values);
      gpu.kernels().quantize({p.out, n, c.width(), rounded}, gpu.stream());
      CHECK(gpu.download(p.out_q.codes, values) == gpu.download(rounded.codes, values));
      CHECK(gpu.download(p.out_q.scales, values / 32) == gpu.download(rounded.scales, values / 32));
      CHECK(gpu.download(p.out_q.sums, values / 16) == gpu.download(rounded.sums, values / 16));
    }
  }
}

TEST_CASE("norm_heads norms and rotates heads, and stores rows of one") {
  const int64_t n = 3, slots = 11, pairs = 4;
  const std::vector<GpuRow> rows = {{9, 0, 1}, {10, 0, 1}, {22, 0, 0}};
  Floats cosines, sines;
  for (int i = 0; i < n * pairs; ++i) {
    cosines.push_back(std::cos(0.3f * static_cast<float>(i)));
    sines.push_back(std::sin(0.3f * static_cast<float>(i)));
  }
  for (const int32_t dim : {8, 20, 512}) {
    for (const int32_t heads : {1, 5}) {
      for (const KvType type : {KvType::kF32, KvType::kBF16}) {
        const bool stores = heads == 1;
        CAPTURE(dim);
        CAPTURE(heads);
        Gpu gpu(dim);
        const Floats x = random_floats(n * heads * dim, 3), gain = random_floats(dim, 4);
        std::vector<CacheRows> expected(2, CacheRows(type, slots, dim));
        std::vector<GpuSequenceCache> caches;
        for (const CacheRows& cache : expected)
          caches.push_back({gpu.upload(cache.bytes()), slots, {}, {}});
        const GpuNormHeadsParams p = {.x = gpu.upload(x),
                                      .gain = stores ? gpu.upload(gain) : nullptr,
                                      .eps = 1e-3f,
                                      .n = n,
                                      .heads = heads,
                                      .dim = dim,
                                      .rope_dim = 2 * pairs,
                                      .cosines = gpu.upload(cosines),
                                      .sines = gpu.upload(sines),
                                      .rows = gpu.upload(rows),
                                      .caches = stores ? gpu.upload(caches) : nullptr,
                                      .kv_type = type};
        gpu.kernels().norm_heads(p, gpu.stream());
        const Floats result = gpu.download(p.x, x.size());

        float* y = gpu.upload(x);
        gpu.kernels().rms_norm({y, p.gain, p.eps, n * heads, dim, y, {}}, gpu.stream());
        gpu.kernels().rope({y, n, heads, dim, p.rope_dim, p.cosines, p.sines, false}, gpu.stream());
        CHECK(max_difference(gpu.download(y, x.size()), result) < 2e-6);
        if (!stores) continue;
        for (int64_t i = 0; i < n; ++i)
          expected[rows[i].sequence].set(rows[i].position % slots, &result[i * dim]);
        for (size_t s = 0; s < 2; ++s) {
          const auto* window = static_cast<const unsigned char*>(caches[s].window);
          CHECK(gpu.download(window, expected[s].bytes().size()) == expected[s].bytes());
        }
      }
    }
  }
}

TEST_CASE("attention: long prompts on tensor cores, heads and lists that do not fill tiles") {
  struct Kind {
    Shape shape;
    int64_t position;
  };
  const Kind kinds[] = {{{64, 512, 128, 4, 60, Entries::kSelected}, 700},
                        {{33, 64, 31, 2, 0, Entries::kAll}, 50},
                        {{3, 192, 32, 0, 0, Entries::kNone}, 27},
                        {{17, 128, 9, 1, 22, Entries::kSelected}, 40}};
  for (const Kind& kind : kinds) {
    CAPTURE(kind.shape.dim);
    std::vector<GpuRow> rows;
    for (int32_t i = 0; i < 9; ++i) rows.push_back({kind.position * (i % 5) / 4, 0, i % 3});
    Case c(kind.shape, KvType::kBF16, rows, kind.shape.heads);
    for (float& value : c.q) value = bfloat16_to_float(float_to_bfloat16(value));
    const Floats out = c.run(true, 0);
    // What rounding the weights of rows takes; of values that are at most 5.
    CHECK(max_difference(c.expected(), out) < 6e-3);
    CHECK(c.run(true, 3) == out);
  }
}

TEST_CASE("attention: scores far apart neither overflow nor vanish") {
  for (const bool prefill : {false, true}) {
    Case c({2, 16, 50, 0, 0, Entries::kNone}, KvType::kF32, {{49, 0, 0}}, 8);
    for (float& value : c.q) value *= 60;
    c.sinks = {-500, 0};
    CHECK(max_difference(c.expected(), c.run(prefill, 3)) < 1e-4);
  }
}
