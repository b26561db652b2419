// Compressed entries over several calls, against the same entries from all tokens at once.
#include <doctest/doctest.h>

#include <algorithm>

#include "gpu_kernels/caches.h"

using namespace hearth;
using namespace hearth::test;

namespace {

struct Shape {
  int32_t ratio, width, rope_dim;
  bool overlapping;
  KvType type;

  int32_t lanes() const { return overlapping ? 2 * width : width; }
  int32_t carry_slots() const { return overlapping ? 2 * ratio : ratio; }
};

constexpr Shape kShapes[] = {{4, 20, 8, true, KvType::kF32},
                             {4, 520, 64, true, KvType::kBF16},
                             {128, 24, 24, false, KvType::kF32},
                             {128, 16, 4, false, KvType::kBF16}};

std::vector<double> frequencies(int32_t pairs) {
  std::vector<double> values;
  for (int32_t i = 0; i < pairs; ++i) values.push_back(std::pow(1000.0, -1.0 * i / pairs));
  return values;
}

constexpr int64_t kTokens = 300;  // of a sequence
constexpr int kSequences = 2;

// All inputs of two sequences, and what must become of them.
struct Timeline {
  Shape shape;
  std::vector<Floats> inputs;  // [sequences] of [tokens, 2, lanes]
  Floats ape, gain;
  std::vector<CacheRows> entries;

  explicit Timeline(const Shape& s) : shape(s) {
    ape = random_floats(s.ratio * s.lanes(), 1);
    gain = random_floats(s.width, 2);
    for (int i = 0; i < kSequences; ++i) {
      inputs.push_back(random_floats(kTokens * 2 * s.lanes(), 3 + i, 2));
      entries.emplace_back(s.type, kTokens / s.ratio, s.width);
      for (int64_t e = 0; e < kTokens / s.ratio; ++e) entries[i].set(e, entry(i, e).data());
    }
  }

  const float* token(int sequence, int64_t position) const {
    return inputs[sequence].data() + position * 2 * shape.lanes();
  }

  Floats entry(int sequence, int64_t e) const {
    std::vector<const float*> values, gates, biases;
    auto add_window = [&](int64_t window, int32_t lane) {
      for (int32_t j = 0; j < shape.ratio; ++j) {
        values.push_back(token(sequence, window * shape.ratio + j) + lane);
        gates.push_back(values.back() + shape.lanes());
        biases.push_back(ape.data() + j * shape.lanes() + lane);
      }
    };
    if (shape.overlapping && e > 0) add_window(e - 1, 0);
    add_window(e, shape.overlapping ? shape.width : 0);
    Floats row(shape.width), cosines, sines;
    reference().compress({values.data(), gates.data(), biases.data(),
                          static_cast<int32_t>(values.size()), shape.width, row.data()});
    reference().rms_norm(row.data(), gain.data(), 1e-6f, 1, shape.width, row.data());
    for (const double f : frequencies(shape.rope_dim / 2)) {
      const double angle = static_cast<double>(e * shape.ratio) * f;
      cosines.push_back(static_cast<float>(std::cos(angle)));
      sines.push_back(static_cast<float>(std::sin(angle)));
    }
    reference().rope({row.data(), 1, shape.width, shape.rope_dim, cosines.data(), sines.data()});
    return row;
  }
};

// The caches on the device, fed call by call.
class Fed {
 public:
  Fed(const Timeline& timeline, bool of_index, uint64_t seed)
      : gpu_(seed), t_(timeline), of_index_(of_index) {
    const Shape& s = t_.shape;
    for (int i = 0; i < kSequences; ++i) {
      const CacheRows blank(s.type, kTokens / s.ratio, s.width);
      const GpuCompressedCache own = {
          gpu_.upload(blank.bytes()),
          gpu_.upload(Floats(s.carry_slots() * 2 * s.lanes(), std::nanf("")))};
      if (of_index) {
        caches_.push_back({.window = nullptr, .window_slots = 1, .entries = {}, .index = own});
      } else {
        caches_.push_back({.window = nullptr, .window_slots = 1, .entries = own, .index = {}});
      }
    }
  }

  // The next tokens of each sequence.
  void feed(const std::vector<int64_t>& counts) {
    const Shape& s = t_.shape;
    std::vector<GpuRow> rows;
    Floats inputs;
    for (int32_t i = 0; i < kSequences; ++i) {
      for (int64_t j = 0; j < counts[i]; ++j, ++fed_[i]) {
        rows.push_back({fed_[i], 0, i});
        const float* token = t_.token(i, fed_[i]);
        inputs.insert(inputs.end(), token, token + 2 * s.lanes());
      }
    }
    const int64_t n = std::ssize(rows);
    const int32_t pairs = s.rope_dim / 2;
    const GpuRow* on_device = gpu_.upload(rows);
    float* cosines = gpu_.allocate<float>(n * pairs);
    float* sines = gpu_.allocate<float>(n * pairs);
    const double* angles = gpu_.upload(frequencies(pairs));
    gpu_.kernels().rope_angles({on_device, angles, n, pairs, s.ratio, cosines, sines},
                               gpu_.stream());
    gpu_.kernels().append_entries({.inputs = gpu_.upload(inputs),
                                   .rows = on_device,
                                   .caches = gpu_.upload(caches_),
                                   .kv_type = s.type,
                                   .of_index = of_index_,
                                   .n = n,
                                   .run_max = *std::max_element(counts.begin(), counts.end()),
                                   .ratio = s.ratio,
                                   .width = s.width,
                                   .overlapping = s.overlapping,
                                   .ape = gpu_.upload(t_.ape),
                                   .gain = gpu_.upload(t_.gain),
                                   .eps = 1e-6f,
                                   .rope_dim = s.rope_dim,
                                   .cosines = cosines,
                                   .sines = sines},
                                  gpu_.stream());
  }

  void check() {
    const Shape& s = t_.shape;
    for (int i = 0; i < kSequences; ++i) {
      const GpuCompressedCache& own = of_index_ ? caches_[i].index : caches_[i].entries;
      CacheRows rows = t_.entries[i];
      const Floats expected = rows.floats();
      rows.replace(gpu_.download(static_cast<unsigned char*>(own.rows), rows.bytes().size()));
      const Floats found = rows.floats();
      const size_t made = fed_[i] / s.ratio * s.width;
      for (size_t j = 0; j < found.size(); ++j) {
        if (j >= made) {
          if (!std::isnan(found[j])) FAIL("wrote an entry that is not finished");
          continue;
        }
        const float error = s.type == KvType::kF32 ? 4e-6f : 0x1p-7f;
        if (!(std::fabs(found[j] - expected[j]) <= error * std::fmax(1, std::fabs(expected[j]))))
          FAIL("entry " << j / s.width << " of sequence " << i << " is " << found[j] << ", not "
                        << expected[j]);
      }
      const int64_t slots = s.carry_slots(), floats = 2 * s.lanes();
      const Floats carry = gpu_.download(own.carry, slots * floats);
      for (int64_t p = std::max<int64_t>(0, fed_[i] - slots); p < fed_[i]; ++p) {
        CHECK(std::memcmp(&carry[p % slots * floats], t_.token(i, p), floats * 4) == 0);
      }
    }
  }

 private:
  Gpu gpu_;
  const Timeline& t_;
  bool of_index_;
  std::vector<GpuSequenceCache> caches_;
  int64_t fed_[kSequences] = {};
};

}  // namespace

TEST_CASE("rope_angles: of a position and of the entry that it is part of") {
  Gpu gpu(2);
  const std::vector<GpuRow> rows = {{0, 0, 0}, {3, 0, 0}, {4, 0, 0}, {131, 0, 1}, {1048575, 0, 1}};
  const std::vector<double> f = frequencies(5);
  for (const int32_t ratio : {1, 4, 128}) {
    float* cosines = gpu.allocate<float>(25);
    float* sines = gpu.allocate<float>(25);
    gpu.kernels().rope_angles({gpu.upload(rows), gpu.upload(f), 5, 5, ratio, cosines, sines},
                              gpu.stream());
    Floats expected_cosines, expected_sines;
    for (const GpuRow& row : rows) {
      for (const double frequency : f) {
        const double angle = static_cast<double>(row.position / ratio * ratio) * frequency;
        expected_cosines.push_back(static_cast<float>(std::cos(angle)));
        expected_sines.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    CHECK(max_difference(expected_cosines, gpu.download(cosines, 25)) < 1e-7);
    CHECK(max_difference(expected_sines, gpu.download(sines, 25)) < 1e-7);
  }
}

TEST_CASE("append_entries: a token at a time") {
  for (const Shape& shape : kShapes) {
    CAPTURE(shape.width);
    const Timeline timeline(shape);
    Fed fed(timeline, false, 1);
    for (int i = 0; i < (shape.overlapping ? 14 : 130); ++i) fed.feed({1, 1});
    fed.check();
  }
}

TEST_CASE("append_entries: runs of every length, sequences that are left out") {
  for (const Shape& shape : kShapes) {
    CAPTURE(shape.width);
    const Timeline timeline(shape);
    Fed fed(timeline, true, 2);
    for (int64_t i = 1; i < 12; ++i) {
      fed.feed({i, i % 3});
      fed.check();
    }
    fed.feed({150, 3});
    fed.check();
    fed.feed({0, 250});
    fed.feed({1, 1});
    fed.check();
  }
}

TEST_CASE("append_entries: all tokens at once") {
  for (const Shape& shape : kShapes) {
    CAPTURE(shape.width);
    const Timeline timeline(shape);
    Fed fed(timeline, false, 3);
    fed.feed({kTokens, 129});
    fed.check();
  }
}
