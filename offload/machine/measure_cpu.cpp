#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "base/buffer.h"
#include "base/tensor_type.h"
#include "format/interleave.h"
#include "offload/machine/measure.h"
#include "offload/machine/timing.h"

namespace hearth {
namespace {

constexpr TensorType kFormats[] = {TensorType::kMXFP4,  TensorType::kQ8_0,    TensorType::kQ4_K,
                                   TensorType::kQ5_K,   TensorType::kQ6_K,    TensorType::kQ3_K,
                                   TensorType::kQ2_K,   TensorType::kIQ2_XXS, TensorType::kIQ3_XXS,
                                   TensorType::kIQ4_XS, TensorType::kF8_E4M3, TensorType::kF16,
                                   TensorType::kBF16,   TensorType::kF32};

constexpr int64_t kColumns = 4096;  // the width of Flash
constexpr int32_t kTokens[] = {1, 4, 8, 16, 64, 256};
constexpr int32_t kTokensMax = 256;
constexpr int64_t kRowTile = 16;           // rows that kernels take at a time, or a multiple
constexpr int64_t kPromptRowTile = 64;     // of a piece, where tokens are many
constexpr int64_t kCachedBytes = 2 << 20;  // weights of a thread that stay in its caches
constexpr int64_t kCachedRowsMax = 1024;   // and few enough rows that their results do too
constexpr double kPassSeconds = 2e-3;      // long beside the start of a loop
// What a loop of a model reads, a matrix or a token's experts: its start and its end, when some
// threads wait for the last, belong to the rate.
constexpr int64_t kStreamPassBytes = 24 << 20;
constexpr int64_t kBfloat16Padding = 32;  // as the kernels want it

// Rows of activations, plain and rounded as the kernels read them.
class ProbeActivations {
 public:
  explicit ProbeActivations(const Kernels& kernels)
      : values_(kTokensMax * kColumns),
        scales_(kTokensMax * kColumns / kQuantBlock),
        sums_(kTokensMax * kColumns / kQuantHalf),
        codes_(kTokensMax * kColumns) {
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i] = static_cast<float>(i * 2654435761u % 2001) * 1e-3f - 1;
    }
    if (kernels.reads_bfloat16) bfloat16s_.resize(kTokensMax * kStride);
    kernels.quantize(values_.data(), kTokensMax, kColumns, rounded());
  }

  const float* values() const { return values_.data(); }
  RoundedRows rounded() {
    return {codes_.data(), scales_.data(), sums_.data(),
            bfloat16s_.empty() ? nullptr : bfloat16s_.data(), bfloat16s_.empty() ? 0 : kStride};
  }

 private:
  static constexpr int64_t kStride = kColumns + kBfloat16Padding;
  std::vector<float> values_, scales_, sums_;
  std::vector<int8_t> codes_;
  std::vector<uint16_t> bfloat16s_;
};

struct RowRange {
  int64_t begin;
  int64_t end;
};

// One node's rows as decode cuts them: long pieces first, short ones last, so that threads end
// together.
void cut_rows(int64_t rows, int64_t bytes_of_row, int threads, int64_t row_tile,
              std::vector<RowRange>& pieces) {
  constexpr int64_t kPartsOfRest = 3, kPieceBytesMin = 32 << 10;
  for (int64_t at = 0; at < rows;) {
    const int64_t part = (rows - at) / (kPartsOfRest * threads);
    const int64_t wanted = std::max(part, kPieceBytesMin / bytes_of_row) / row_tile * row_tile;
    const int64_t taken = std::min(std::max(wanted, row_tile), rows - at);
    pieces.push_back({at, at + taken});
    at += taken;
  }
}

// Measures the formats of one table of kernels.
class FormatProbe {
 public:
  FormatProbe(const Kernels& kernels, const Workers& workers, const ProbeMemory& memory)
      : kernels_(kernels),
        workers_(workers),
        memory_(memory),
        activations_(kernels),
        outputs_(static_cast<size_t>(workers.threads() * kCachedRowsMax * kStreamedTokens) *
                 sizeof(float)) {}

  FormatRates measure(TensorType type, bool interleaved, const MeasureTimes& times) {
    interleaved_ = interleaved;
    FormatRates rates;
    rates.format = format_name(type, interleaved);
    rates.stream_gb_s = stream_gb_s(type, times.stream);
    for (const int32_t tokens : kTokens) {
      const double gflop_s = tokens <= kStreamedTokens ? cached_gflop_s(type, tokens, times.matmul)
                                                       : prompt_gflop_s(type, tokens, times.matmul);
      rates.matmul.push_back({tokens, gflop_s});
    }
    return rates;
  }

 private:
  void multiply(Matrix w, RowRange rows, int32_t tokens, float* y, int64_t y_stride) {
    w.interleaved = interleaved_;
    kernels_.matmul({.w = w,
                     .x = activations_.values(),
                     .xq = activations_.rounded(),
                     .x_rows = nullptr,
                     .n = tokens,
                     .y = y,
                     .y_rows = nullptr,
                     .y_stride = y_stride,
                     .row_begin = rows.begin,
                     .row_end = rows.end,
                     .prefill = tokens > kStreamedTokens});
  }

  double stream_gb_s(TensorType type, double seconds) {
    const auto bytes_of_row = static_cast<double>(row_bytes(type, kColumns));
    return 1e-9 * bytes_of_row * rows_a_second(type, 1, seconds);
  }

  double prompt_gflop_s(TensorType type, int32_t tokens, double seconds) {
    return 1e-9 * 2 * kColumns * tokens * rows_a_second(type, tokens, seconds);
  }

  // Passes over parts of the memory, one after the other, so that caches hold nothing of the next.
  double rows_a_second(TensorType type, int32_t tokens, double seconds) {
    const int64_t row = row_bytes(type, kColumns);
    const int64_t node_rows = std::ssize(memory_.of_node(0)) / row / kRowTile * kRowTile;
    const int64_t rows = std::clamp<int64_t>(
        kStreamPassBytes / (row * memory_.nodes()) / kRowTile * kRowTile, kRowTile, node_rows);
    Buffer y(static_cast<size_t>(rows * memory_.nodes() * tokens) * sizeof(float));
    int64_t first = 0;
    return median_rate(seconds, [&] {
      if (first + rows > node_rows) first = 0;
      multiply_part(type, tokens, {first, first + rows}, y.as<float>());
      first += rows;
      return static_cast<double>(rows * memory_.nodes());
    });
  }

  // The same range of rows of every node's share, in one loop; each node's threads begin with their
  // own. y [tokens, nodes * rows].
  void multiply_part(TensorType type, int32_t tokens, RowRange range, float* y) {
    const int nodes = memory_.nodes();
    const int64_t rows = range.end - range.begin, row = row_bytes(type, kColumns);
    pieces_.clear();
    cut_rows(rows, row, workers_.threads() / nodes,
             tokens > kStreamedTokens ? kPromptRowTile : kRowTile, pieces_);
    const int64_t per_node = std::ssize(pieces_);
    workers_.for_range(per_node * nodes, 1, [&](int64_t i, int64_t, int) {
      const int64_t node = i / per_node;
      const unsigned char* weights = memory_.of_node(static_cast<int>(node)).data();
      multiply({type, rows, kColumns, weights + range.begin * row},
               pieces_[static_cast<size_t>(i % per_node)], tokens, y + node * rows, nodes * rows);
    });
  }

  // Every thread again and again the same weights, its own.
  double cached_gflop_s(TensorType type, int32_t tokens, double seconds) {
    const int64_t row = row_bytes(type, kColumns);
    const int64_t threads_a_node = (workers_.threads() + memory_.nodes() - 1) / memory_.nodes();
    const int64_t share = std::min(kCachedBytes, std::ssize(memory_.of_node(0)) / threads_a_node);
    const int64_t rows_max =
        std::clamp(share / row / kRowTile * kRowTile, kRowTile, kCachedRowsMax);
    const int64_t places = std::ssize(memory_.of_node(0)) / (rows_max * row);
    const auto pass = [&](int64_t rows, int64_t times) {
      workers_.on_each_thread([&](int thread) {
        const int node = workers_.node_of(thread);
        const int64_t place = thread % threads_a_node % places;
        const Matrix w{type, rows_max, kColumns,
                       memory_.of_node(node).data() + place * rows_max * row};
        float* y = outputs_.as<float>() + thread * kCachedRowsMax * kStreamedTokens;
        for (int64_t i = 0; i < times; ++i) multiply(w, {0, rows}, tokens, y, rows_max);
      });
      return 2.0 * static_cast<double>(times * rows * kColumns * tokens * workers_.threads());
    };
    pass(kRowTile, 1);  // brings the first weights into the caches
    double row_seconds = HUGE_VAL;
    for (int i = 0; i < 3; ++i) {
      row_seconds = std::min(row_seconds, seconds_of([&] { pass(kRowTile, 1); }) / kRowTile);
    }
    const auto wanted = static_cast<int64_t>(kPassSeconds / row_seconds);
    const int64_t rows = std::clamp(wanted / kRowTile * kRowTile, kRowTile, rows_max);
    const int64_t times = std::max<int64_t>(wanted / rows, 1);
    return 1e-9 * best_rate(seconds, [&] { return pass(rows, times); });
  }

  const Kernels& kernels_;
  const Workers& workers_;
  const ProbeMemory& memory_;
  ProbeActivations activations_;
  Buffer outputs_;
  std::vector<RowRange> pieces_;
  bool interleaved_ = false;  // whether the memory is taken for such rows
};

double registers_gflop_s(const Kernels& kernels, const Workers& workers, double seconds) {
  const auto pass = [&](int64_t rounds) {
    std::atomic<int64_t> done = 0;
    workers.on_each_thread([&](int) { done += kernels.multiply_registers(rounds); });
    return static_cast<double>(done);
  };
  constexpr int64_t kFirstRounds = 1 << 10;
  pass(kFirstRounds);  // wakes the units, which sleep where the CPU saves power
  const double first_seconds = seconds_of([&] { pass(kFirstRounds); });
  const auto rounds = static_cast<int64_t>(kFirstRounds * kPassSeconds / first_seconds);
  return 1e-9 * best_rate(seconds, [&] { return pass(std::max(rounds, kFirstRounds)); });
}

// Queries of Flash over their windows and the rows their indexers select of 32768 tokens, which lie
// anywhere in the cache; every thread one of its own.
double attention_gflop_s(const Kernels& kernels, const Workers& workers, bool prompt,
                         double seconds) {
  constexpr int32_t kHeads = 64, kDim = 512, kWindow = 128, kRows = kWindow + 512;
  constexpr uint32_t kCachedRows = 32768 / 4;
  Buffer cache(size_t{kCachedRows} * kDim * sizeof(uint16_t));
  auto* values = cache.as<uint16_t>();  // bfloat16 from 0.25 to 0.5, of either sign
  for (uint32_t i = 0; i < kCachedRows * kDim; ++i) {
    values[i] = static_cast<uint16_t>(0x3e80 | (i * 2654435761u >> 8 & 0x807f));
  }
  const std::vector<float> query(kHeads * kDim, 0.01f), sinks(kHeads, 0.0f);
  const auto threads = static_cast<size_t>(workers.threads());
  std::vector<const void*> rows(threads * kRows);
  std::vector<float> scores(threads * kHeads * kRows), outputs(threads * kHeads * kDim);
  uint32_t chosen = 0;
  return 1e-9 * median_rate(seconds, [&] {
           for (size_t i = 0; i < rows.size(); ++i) {
             const bool is_near = i % kRows < kWindow;
             const uint32_t row = is_near ? i % kRows : (chosen += 2654435761u) >> 7;
             rows[i] = values + int64_t{row % kCachedRows} * kDim;
           }
           workers.on_each_thread([&](int thread) {
             kernels.attention({.q = query.data(),
                                .rows = rows.data() + thread * kRows,
                                .kv_type = KvType::kBF16,
                                .n_rows = kRows,
                                .dim = kDim,
                                .head_begin = 0,
                                .head_end = kHeads,
                                .sinks = sinks.data(),
                                .scale = 1 / std::sqrt(static_cast<float>(kDim)),
                                .scores = scores.data() + thread * kHeads * kRows,
                                .out = outputs.data() + thread * kHeads * kDim,
                                .prefill = prompt});
           });
           return 4.0 * kHeads * kRows * kDim * static_cast<double>(threads);
         });
}

}  // namespace

std::span<const TensorType> measured_formats() { return kFormats; }

IsaRates measure_isa(const Kernels& kernels, const Workers& workers, const ProbeMemory& memory,
                     std::span<const TensorType> formats, const MeasureTimes& times,
                     const std::function<void()>& on_format) {
  IsaRates rates;
  rates.name = kernels.name;
  rates.matmul_gflop_s = registers_gflop_s(kernels, workers, times.registers);
  rates.attention_gflop_s = attention_gflop_s(kernels, workers, false, times.attention);
  rates.prompt_attention_gflop_s = attention_gflop_s(kernels, workers, true, times.attention);
  FormatProbe probe(kernels, workers, memory);
  for (const TensorType type : formats) {
    if (on_format) on_format();
    rates.formats.push_back(probe.measure(type, false, times));
    if (kernels.reads_interleaved && can_interleave(type)) {
      rates.formats.push_back(probe.measure(type, true, times));
    }
  }
  return rates;
}

}  // namespace hearth
