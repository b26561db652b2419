// Experts of few tokens and of many: how picks are tiled, the products of every format, and their
// sum.
#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "cpu_kernels/rounded_product.h"
#include "gpu_kernels/gpu.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;
using Floats = std::vector<float>;
using Rows = std::vector<int32_t>;
using Places = std::vector<const unsigned char*>;

namespace {

constexpr float kUntouched = -12345.0f;
constexpr float kClamp = 3.0f;

std::vector<TensorType> known_types() {
  Gpu gpu;
  std::vector<TensorType> types;
  for (const auto& list : {kPlainTypes, kBlockTypes}) {
    for (const TensorType type : list) {
      if (gpu.kernels().multiplies(type)) types.push_back(type);
    }
  }
  return types;
}

struct Tiles {
  Rows experts, begins, order;
};

Tiles expected_tiles(const Rows& picks, const std::vector<bool>& present, int32_t tile_size) {
  Tiles tiles;
  for (size_t e = 0; e < present.size(); ++e) {
    int32_t of_expert = 0;
    for (size_t i = 0; i < picks.size(); ++i) {
      if (picks[i] != static_cast<int32_t>(e) || !present[e]) continue;
      if (of_expert++ % tile_size == 0) {
        tiles.experts.push_back(picks[i]);
        tiles.begins.push_back(static_cast<int32_t>(tiles.order.size()));
      }
      tiles.order.push_back(static_cast<int32_t>(i));
    }
  }
  tiles.begins.push_back(static_cast<int32_t>(tiles.order.size()));
  return tiles;
}

// Places that are only asked whether they are null.
Places some_places(const std::vector<bool>& present) {
  static const unsigned char somewhere = 0;
  Places places;
  for (const bool is_there : present) places.push_back(is_there ? &somewhere : nullptr);
  return places;
}

GpuPickTiles run_tile_picks(Gpu& gpu, const int32_t* picks, const unsigned char* const* data,
                            int64_t n, int32_t used, int32_t experts,
                            int32_t tile_size = kGpuTilePicks) {
  const int64_t most = std::min(n * used, experts + n * used / tile_size);
  const GpuPickTiles tiles = {gpu.allocate<int32_t>(1), gpu.allocate<int32_t>(most),
                              gpu.allocate<int32_t>(most + 1), gpu.allocate<int32_t>(n * used)};
  gpu.kernels().tile_picks({picks, data, n, used, experts, tiles, tile_size}, gpu.stream());
  return tiles;
}

struct Bounded {
  double value;
  double error;  // at most
};

// Experts of one matrix each, with rows of activations that they all see.
struct Experts {
  Experts(TensorType weight_type, int count, int64_t row_count, int64_t columns, int64_t x_rows,
          uint32_t seed)
      : type(weight_type), rows(row_count), k(columns) {
    for (int e = 0; e < count; ++e)
      cases.push_back(std::make_unique<Case>(type, rows, k, x_rows, seed + e));
  }
  Case& x() { return *cases[0]; }
  // Other weights for the same activations.
  Experts others(uint32_t shift) {
    Experts other(type, static_cast<int>(cases.size()), rows, k, x().x_rows, 1000 + shift);
    Case& first = other.x();
    std::copy_n(x().x.data(), x().x_rows * k, first.x.data());
    first.round();
    return other;
  }

  // `missing` is elsewhere. Each at another alignment.
  GpuExpertMatrices upload(Gpu& gpu, std::optional<int32_t> missing = {}) {
    Places places;
    const size_t bytes = rows * row_bytes(type, k);
    for (size_t e = 0; e < cases.size(); ++e) {
      const size_t before = e == 0 ? (16 - bytes % 16) % 16 : 3 * e % 16;
      places.push_back(missing == static_cast<int32_t>(e)
                           ? nullptr
                           : gpu.upload(cases[e]->weights.data(), bytes, before));
    }
    return {type, rows, k, gpu.upload(places)};
  }
  GpuRoundedRows upload_rounded(Gpu& gpu) {
    if (!reads_quantized(type)) return {};
    return {gpu.upload(x().codes.data(), x().x_rows * k),
            gpu.upload(x().scales.data(), x().x_rows * k / 32),
            gpu.upload(x().sums.data(), x().x_rows * k / 16)};
  }
  const float* upload_plain(Gpu& gpu) {
    return reads_quantized(type) ? nullptr : gpu.upload(x().x.data(), x().x_rows * k);
  }

  const Floats& row_weights(int32_t expert, int64_t row) {
    Floats& w = weights[{expert, row}];
    if (w.empty()) {
      w.resize(k);
      dequantize(type, cases[expert]->weights.data() + row * row_bytes(type, k), k, w.data());
    }
    return w;
  }
  double product(int32_t expert, int64_t row, int64_t x_row) {
    const Floats& w = row_weights(expert, row);
    double sum = 0;
    for (int64_t j = 0; j < k; ++j) sum += w[j] * x().activation(x_row, j);
    return sum;
  }
  // Of values rounded to bfloat16, where one weight may have gone the other way.
  Bounded bfloat16_product(int32_t expert, int64_t row, int64_t x_row) {
    const Floats& w = row_weights(expert, row);
    double sum = 0, magnitude = 0, largest = 0;
    for (int64_t j = 0; j < k; ++j) {
      const double product =
          static_cast<double>(to_bfloat16(w[j])) * to_bfloat16(x().x[x_row * k + j]);
      sum += product;
      magnitude += std::abs(product);
      largest = std::max(largest, std::abs(product));
    }
    return {sum, 4e-6 * magnitude + 0x1p-7 * largest};
  }
  const uint16_t* upload_bfloat16s(Gpu& gpu) {
    std::vector<uint16_t> values;
    for (int64_t i = 0; i < x().x_rows * k; ++i) values.push_back(float_to_bfloat16(x().x[i]));
    return gpu.upload(values);
  }

  TensorType type;
  int64_t rows, k;
  std::vector<std::unique_ptr<Case>> cases;
  std::map<std::pair<int32_t, int64_t>, Floats> weights;
};

enum class How { kAlone, kTiled, kShared };

struct Setting {
  Rows picks;  // [n, used]
  int64_t n;
  int32_t used;
  int32_t missing;

  int32_t expert(int64_t i) const { return picks.empty() ? 0 : picks[i]; }
  bool is_there(int64_t i) const { return picks.empty() || picks[i] != missing; }
  int64_t count() const { return n * used; }

  GpuPicks upload(Gpu& gpu, How how, const GpuExpertMatrices& matrices, int32_t experts,
                  int32_t tile_size = kGpuTilePicks) const {
    GpuPicks p = {nullptr, {}, n, used, experts, tile_size};
    if (how == How::kShared) return p;
    const int32_t* on_device = gpu.upload(picks);
    p.picks = on_device;
    if (how == How::kTiled)
      p.tiles = run_tile_picks(gpu, on_device, matrices.data, n, used, experts, tile_size);
    return p;
  }
};

// Eleven rows of three experts, of which some have one pick, some two, four or more than a tile.
const Setting kRouted = {{0, 1, 3, 4, 5, 2, 3, 4, 0, 3, 4, 2, 3, 4, 1, 3, 4,
                          0, 3, 5, 4, 3, 2, 4, 3, 4, 1, 3, 4, 2, 3, 4, 0},
                         11,
                         3,
                         2};

Floats run_hidden(Experts& gate, Experts& up, const Setting& setting, How how, uint64_t seed) {
  Gpu gpu(seed);
  GpuExpertHiddenParams p = {};
  const auto experts = static_cast<int32_t>(gate.cases.size());
  p.gate = gate.upload(gpu, setting.missing);
  p.up = up.upload(gpu, setting.missing);
  p.picks = setting.upload(gpu, how, p.gate, experts);
  p.x = gate.upload_plain(gpu);
  p.xq = gate.upload_rounded(gpu);
  p.clamp = kClamp;
  const Floats blank(setting.count() * gate.rows, kUntouched);
  p.hidden = gpu.upload(blank);
  gpu.kernels().expert_hidden(p, gpu.stream());
  return gpu.download(p.hidden, blank.size());
}

// The largest error, relative to what sums of this many products have.
double hidden_error(Experts& gate, Experts& up, const Setting& setting, const Floats& hidden) {
  double worst = 0;
  for (int64_t i = 0; i < setting.count(); ++i) {
    for (int64_t r = 0; r < gate.rows; ++r) {
      const float value = hidden[i * gate.rows + r];
      if (!setting.is_there(i)) {
        if (value != kUntouched) return 1e30;
        continue;
      }
      const int64_t x_row = i / setting.used;
      const double g = std::min<double>(gate.product(setting.expert(i), r, x_row), kClamp);
      const double u = std::clamp<double>(up.product(setting.expert(i), r, x_row), -kClamp, kClamp);
      const double error = std::abs(value - g / (1 + std::exp(-g)) * u);
      worst = std::max(worst, error <= 1e30 ? error : 1e30);
    }
  }
  return worst;
}

Floats run_output(Experts& down, const Setting& setting, How how, uint64_t seed, int32_t terms,
                  int32_t first_term) {
  Gpu gpu(seed);
  GpuExpertOutputParams p = {};
  p.down = down.upload(gpu, setting.missing);
  p.picks = setting.upload(gpu, how, p.down, static_cast<int32_t>(down.cases.size()));
  p.hidden = down.upload_plain(gpu);
  p.hidden_q = down.upload_rounded(gpu);
  p.terms = terms;
  p.first_term = first_term;
  const Floats blank(setting.n * terms * down.rows, kUntouched);
  p.out = gpu.upload(blank);
  gpu.kernels().expert_output(p, gpu.stream());
  return gpu.download(p.out, blank.size());
}

double output_error(Experts& down, const Setting& setting, const Floats& out, int32_t terms,
                    int32_t first_term) {
  double worst = 0;
  for (int64_t i = 0; i < setting.n * terms; ++i) {
    const int64_t k = i % terms - first_term, pick = i / terms * setting.used + k;
    const bool is_there = k >= 0 && k < setting.used && setting.is_there(pick);
    for (int64_t r = 0; r < down.rows; ++r) {
      const float value = out[i * down.rows + r];
      if (!is_there) {
        if (value != kUntouched) return 1e30;
        continue;
      }
      const double error = std::abs(value - down.product(setting.expert(pick), r, pick));
      worst = std::max(worst, error <= 1e30 ? error : 1e30);
    }
  }
  return worst;
}

// ---- many tokens ----

// Experts of 1, 31, none, 129 and 33 picks, one of six that is elsewhere, in any order.
Setting many_picks() {
  Rows picks;
  const auto add = [&](int32_t expert, int count) { picks.insert(picks.end(), count, expert); };
  add(0, 1), add(1, 31), add(2, 6), add(4, 129), add(5, 33);
  Random random(5);
  std::ranges::shuffle(picks, random);
  return {picks, std::ssize(picks) / 2, 2, 2};
}

constexpr uint16_t kUntouchedBits = 0x1234;

std::vector<uint16_t> run_many_hidden(Experts& gate, Experts& up, const Setting& setting, How how,
                                      int32_t tile_size, uint64_t seed) {
  Gpu gpu(seed);
  GpuExpertHiddenParams p = {};
  p.gate = gate.upload(gpu, setting.missing);
  p.up = up.upload(gpu, setting.missing);
  p.picks = setting.upload(gpu, how, p.gate, static_cast<int32_t>(gate.cases.size()), tile_size);
  p.clamp = kClamp;
  p.bfloat16s = gate.upload_bfloat16s(gpu);
  const std::vector<uint16_t> blank(setting.count() * gate.rows, kUntouchedBits);
  p.hidden_bfloat16s = gpu.upload(blank);
  gpu.kernels().expert_hidden(p, gpu.stream());
  return gpu.download(p.hidden_bfloat16s, blank.size());
}

void check_many_hidden(Experts& gate, Experts& up, const Setting& setting,
                       const std::vector<uint16_t>& hidden) {
  double worst = 0;
  for (int64_t i = 0; i < setting.count() * gate.rows; ++i) {
    const int64_t pick = i / gate.rows, row = i % gate.rows;
    if (!setting.is_there(pick)) {
      if (hidden[i] != kUntouchedBits) FAIL("wrote what is elsewhere");
      continue;
    }
    const int32_t expert = setting.expert(pick);
    const Bounded gates = gate.bfloat16_product(expert, row, pick / setting.used);
    const Bounded ups = up.bfloat16_product(expert, row, pick / setting.used);
    const double g = std::min<double>(gates.value, kClamp);
    const double u = std::clamp<double>(ups.value, -kClamp, kClamp);
    const double value = g / (1 + std::exp(-g)) * u;
    // The slope of silu is at most 1.1.
    const double bound =
        1.1 * kClamp * gates.error + kClamp * ups.error + 0x1p-8 * std::abs(value) + 1e-30;
    const double error = std::abs(bfloat16_to_float(hidden[i]) - value);
    worst = std::max(worst, error <= 1e30 ? error / bound : 1e30);
  }
  CHECK(worst <= 1);
}

Floats run_many_output(Experts& down, const Setting& setting, How how, int32_t tile_size,
                       uint64_t seed, int32_t terms, int32_t first_term) {
  Gpu gpu(seed);
  GpuExpertOutputParams p = {};
  p.down = down.upload(gpu, setting.missing);
  p.picks = setting.upload(gpu, how, p.down, static_cast<int32_t>(down.cases.size()), tile_size);
  p.hidden_bfloat16s = down.upload_bfloat16s(gpu);
  p.terms = terms;
  p.first_term = first_term;
  const Floats blank(setting.n * terms * down.rows, kUntouched);
  p.out = gpu.upload(blank);
  gpu.kernels().expert_output(p, gpu.stream());
  return gpu.download(p.out, blank.size());
}

void check_many_output(Experts& down, const Setting& setting, const Floats& out, int32_t terms,
                       int32_t first_term) {
  double worst = 0;
  for (int64_t i = 0; i < std::ssize(out); ++i) {
    const int64_t row = i % down.rows, k = i / down.rows % terms - first_term;
    const int64_t pick = i / down.rows / terms * setting.used + k;
    if (k < 0 || k >= setting.used || !setting.is_there(pick)) {
      if (out[i] != kUntouched) FAIL("wrote what others do");
      continue;
    }
    const Bounded product = down.bfloat16_product(setting.expert(pick), row, pick);
    const double error = std::abs(out[i] - product.value);
    worst = std::max(worst, error <= 1e30 ? error / product.error : 1e30);
  }
  CHECK(worst <= 1);
}

// Of every block size some steps of 64 columns and, where it may, a part of one.
int64_t narrow(TensorType type) {
  const int64_t block = type_info(type).block_size;
  return (288 + block - 1) / block * block;
}

int64_t wide(TensorType type) { return type_info(type).block_size == 1 ? 1004 : 1280; }

}  // namespace

TEST_CASE(
    "tile_picks: the picks of each expert together, in their order, none of those elsewhere") {
  std::mt19937 random(1);
  for (const int64_t n : {1, 3, 40, 171}) {
    const int32_t used = 6, experts = n == 40 ? 300 : 17;
    Rows picks(n * used);
    for (int32_t& pick : picks) pick = static_cast<int32_t>(random() % (n == 171 ? 11 : experts));
    std::vector<bool> present(experts);
    for (int32_t e = 0; e < experts; ++e) present[e] = e % 5 != 3;
    for (const int32_t tile_size : {kGpuTilePicks, 32, 128}) {
      CAPTURE(n);
      CAPTURE(tile_size);
      const Tiles expected = expected_tiles(picks, present, tile_size);
      Gpu gpu(tile_size);
      const GpuPickTiles tiles = run_tile_picks(
          gpu, gpu.upload(picks), gpu.upload(some_places(present)), n, used, experts, tile_size);
      const size_t count = expected.experts.size();
      REQUIRE(gpu.download(tiles.count, 1)[0] == static_cast<int32_t>(count));
      CHECK(gpu.download(tiles.experts, count) == expected.experts);
      CHECK(gpu.download(tiles.begins, count + 1) == expected.begins);
      CHECK(gpu.download(tiles.order, expected.order.size()) == expected.order);
    }
  }
}

TEST_CASE("tile_picks of experts that are all elsewhere, or of no rows, makes no tiles") {
  for (const int64_t n : {0, 2}) {
    Gpu gpu;
    const Rows picks(n * 2, 1);
    const GpuPickTiles tiles =
        run_tile_picks(gpu, n > 0 ? gpu.upload(picks) : nullptr,
                       gpu.upload(some_places({false, false, false})), n, 2, 3);
    CHECK(gpu.download(tiles.count, 1)[0] == 0);
    CHECK(gpu.download(tiles.begins, 1)[0] == 0);
  }
}

TEST_CASE("expert_hidden: every pick by its own expert, alone and in tiles the same") {
  for (const TensorType type : known_types()) {
    CAPTURE(type_info(type).name);
    Experts gate(type, 6, 21, wide(type), kRouted.n, 1), up = gate.others(2);
    const Floats alone = run_hidden(gate, up, kRouted, How::kAlone, 0);
    CHECK(hidden_error(gate, up, kRouted, alone) < 1e-4);
    CHECK(run_hidden(gate, up, kRouted, How::kAlone, 1) == alone);
    CHECK(run_hidden(gate, up, kRouted, How::kTiled, 0) == alone);
    CHECK(run_hidden(gate, up, kRouted, How::kTiled, 2) == alone);
  }
}

TEST_CASE("expert_output: in routing order beside those of others, alone and in tiles the same") {
  for (const TensorType type : known_types()) {
    CAPTURE(type_info(type).name);
    Experts down(type, 6, 35, wide(type), kRouted.count(), 3);
    const Floats alone = run_output(down, kRouted, How::kAlone, 0, 4, 0);
    CHECK(output_error(down, kRouted, alone, 4, 0) < 2e-3);
    CHECK(run_output(down, kRouted, How::kTiled, 0, 4, 0) == alone);
    CHECK(run_output(down, kRouted, How::kTiled, 3, 4, 0) == alone);
    CHECK(output_error(down, kRouted, run_output(down, kRouted, How::kAlone, 1, 5, 2), 5, 2) <
          2e-3);
  }
}

TEST_CASE("the shared expert: one for all rows") {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kF16}) {
    Experts gate(type, 1, 9, wide(type), 19, 1), up = gate.others(2);
    Experts down(type, 1, 24, wide(type), 19, 5);
    Floats hidden_of_all, out_of_all;
    for (const int64_t n : {19, 1, 2, 4, 5, 8}) {
      CAPTURE(n);
      const Setting everyone = {{}, n, 1, -1};
      const Floats hidden = run_hidden(gate, up, everyone, How::kShared, n);
      const Floats out = run_output(down, everyone, How::kShared, n, 3, 2);
      if (n == 19) {
        hidden_of_all = hidden;
        out_of_all = out;
        CHECK(hidden_error(gate, up, everyone, hidden) < 1e-4);
        CHECK(output_error(down, everyone, out, 3, 2) < 2e-3);
      }
      CHECK(std::equal(hidden.begin(), hidden.end(), hidden_of_all.begin()));
      CHECK(std::equal(out.begin(), out.end(), out_of_all.begin()));
    }
  }
}

TEST_CASE("experts of many tokens: every format on tensor cores") {
  const Setting setting = many_picks();
  for (const TensorType type : known_types()) {
    if (type == TensorType::kF32) continue;
    CAPTURE(type_info(type).name);
    Experts gate(type, 6, 21, narrow(type), setting.n, 1), up = gate.others(2);
    check_many_hidden(gate, up, setting, run_many_hidden(gate, up, setting, How::kTiled, 32, 1));
    Experts down(type, 6, 35, narrow(type), setting.count(), 3);
    check_many_output(down, setting, run_many_output(down, setting, How::kTiled, 32, 2, 3, 0), 3,
                      0);
  }
}

TEST_CASE("experts of many tokens: large tiles, several of rows, any order of threads") {
  const Setting setting = many_picks();
  for (const TensorType type : {TensorType::kMXFP4, TensorType::kIQ2_S, TensorType::kBF16}) {
    CAPTURE(type_info(type).name);
    Experts gate(type, 6, 75, narrow(type), setting.n, 1), up = gate.others(2);
    const auto hidden = run_many_hidden(gate, up, setting, How::kTiled, 128, 0);
    check_many_hidden(gate, up, setting, hidden);
    CHECK(run_many_hidden(gate, up, setting, How::kTiled, 128, 3) == hidden);
    CHECK(run_many_hidden(gate, up, setting, How::kTiled, 32, 4) == hidden);
    Experts down(type, 6, 140, narrow(type), setting.count(), 3);
    const Floats out = run_many_output(down, setting, How::kTiled, 128, 0, 4, 1);
    check_many_output(down, setting, out, 4, 1);
    CHECK(run_many_output(down, setting, How::kTiled, 128, 5, 4, 1) == out);
  }
}

TEST_CASE("the shared expert of many tokens") {
  for (const int64_t n : {9, 45, 130}) {
    CAPTURE(n);
    const Setting everyone = {{}, n, 1, -1};
    Experts gate(TensorType::kQ8_0, 1, 66, 96, n, 1), up = gate.others(2);
    Experts down(TensorType::kQ8_0, 1, 24, 96, n, 5);
    for (const int32_t tile_size : {32, 128}) {
      check_many_hidden(gate, up, everyone,
                        run_many_hidden(gate, up, everyone, How::kShared, tile_size, n));
      check_many_output(down, everyone,
                        run_many_output(down, everyone, How::kShared, tile_size, n, 3, 2), 3, 2);
    }
  }
}

TEST_CASE("tiles of experts are large where prefills have many picks for each") {
  Gpu gpu;
  const auto size = [&](int64_t n, TensorType gate, TensorType down, int64_t columns) {
    return gpu.kernels().expert_tile_size({nullptr, {}, n, 6, 64}, {gate, 64, columns, nullptr},
                                          {down, 64, columns, nullptr});
  };
  const TensorType few_bits = TensorType::kIQ2_XXS, plain = TensorType::kF16;
  CHECK(size(95, few_bits, TensorType::kQ2_K, 256) == kGpuTilePicks);
  CHECK(size(96, few_bits, TensorType::kQ2_K, 256) == 32);
  CHECK(size(693, few_bits, TensorType::kQ2_K, 256) == 32);
  CHECK(size(694, few_bits, TensorType::kQ2_K, 256) == 128);
  CHECK(size(694, plain, plain, 40) == kGpuTilePicks);
  CHECK(size(694, TensorType::kF32, plain, 64) == kGpuTilePicks);
  CHECK(size(694, plain, TensorType::kF32, 64) == kGpuTilePicks);
}

TEST_CASE("wide experts take several warps a row, and each of those several chunks") {
  Experts gate(TensorType::kMXFP4, 2, 3, 25 * 1024 + 32, 2, 1), up = gate.others(7);
  Experts down(TensorType::kQ8_0, 2, 5, 25632, 4, 2);
  const Setting setting = {{1, 0, 1, 0}, 2, 2, -1};
  for (const How how : {How::kAlone, How::kTiled}) {
    CHECK(hidden_error(gate, up, setting, run_hidden(gate, up, setting, how, 1)) < 2e-4);
    CHECK(output_error(down, setting, run_output(down, setting, how, 1, 3, 0), 3, 0) < 1e-2);
  }
}

TEST_CASE("sum_experts: what is elsewhere is one sum, and what nobody wrote is not read") {
  const int64_t n = 3, dim = 517;
  const int32_t used = 4;
  const Rows picks = {0, 1, 2, 3, 3, 2, 1, 0, 1, 2, 3, 0};
  const Places places = some_places({true, false, true, true});
  Random random(4);
  std::normal_distribution<float> normal;
  Floats outputs(n * (used + 1) * dim), weights(n * (used + 1)), elsewhere(n * dim);
  for (Floats* values : {&outputs, &weights, &elsewhere}) {
    for (float& value : *values) value = normal(random);
  }
  Floats expected;
  for (int64_t i = 0; i < n * dim; ++i) {
    double sum = elsewhere[i];
    for (int32_t k = 0; k <= used; ++k) {
      float& output = outputs[(i / dim * (used + 1) + k) * dim + i % dim];
      if (k < used && picks[i / dim * used + k] == 1) {
        output = std::nanf("");
      } else {
        sum += static_cast<double>(weights[i / dim * (used + 1) + k]) * output;
      }
    }
    expected.push_back(static_cast<float>(sum));
  }
  Gpu gpu(5);
  float* out = gpu.allocate<float>(n * dim);
  GpuSumExpertsParams p = {gpu.upload(outputs),
                           gpu.upload(weights),
                           gpu.upload(picks),
                           gpu.upload(places),
                           gpu.upload(elsewhere),
                           n,
                           used,
                           dim,
                           out};
  gpu.kernels().sum_experts(p, gpu.stream());
  CHECK(max_difference(expected, gpu.download(out, n * dim)) < 2e-6);
  p.elsewhere = nullptr;
  gpu.kernels().sum_experts(p, gpu.stream());
  for (int64_t i = 0; i < n * dim; ++i) expected[i] -= elsewhere[i];
  CHECK(max_difference(expected, gpu.download(out, n * dim)) < 2e-6);
}

TEST_CASE("rounding rows that nobody wrote leaves the others as they are") {
  Gpu gpu(6);
  Floats x(64, std::nanf(""));
  for (int i = 32; i < 64; ++i) x[i] = static_cast<float>(i);
  const GpuRoundedRows out = {gpu.allocate<int8_t>(64), gpu.allocate<float>(2),
                              gpu.allocate<float>(4)};
  gpu.kernels().quantize({gpu.upload(x), 2, 32, out}, gpu.stream());
  CHECK(gpu.download(out.scales, 2)[1] == 63.0f / 127.0f);
  CHECK(gpu.download(out.codes, 64)[63] == 127);
}

TEST_CASE("no rows, no experts' work") {
  Gpu gpu;
  gpu.kernels().tile_picks({}, gpu.stream());
  gpu.kernels().expert_hidden({}, gpu.stream());
  gpu.kernels().expert_output({}, gpu.stream());
  gpu.kernels().sum_experts({}, gpu.stream());
}
