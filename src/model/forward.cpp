#include "model/forward.h"

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "format/dequantize.h"
#include "model/lookahead.h"
#include "model/step.h"

namespace hearth {
namespace {

// A prompt of so many picks for each expert touches nearly all of them.
constexpr int64_t kPicksToTouchAll = 4;

// Rows in a batch whose logits are wanted.
void list_wanted_rows(const Batch& batch, LogitRows wanted, std::vector<int32_t>& rows) {
  rows.clear();
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const int32_t first = batch.first_rows[s];
    const int32_t last = first + static_cast<int32_t>(batch.segments[s].tokens.size()) - 1;
    for (int32_t row = wanted == LogitRows::kAll ? first : last; row <= last; ++row) {
      rows.push_back(row);
    }
  }
}

}  // namespace

class Forward::Pass {
 public:
  Pass(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
       const Workers& workers, int64_t context, const Limits& limits, ExpertStore& store)
      : config_(config),
        weights_(weights),
        limits_(limits),
        context_(context),
        rope_plain_(config.rope_plain, config.rope_dim),
        rope_compressed_(config.rope_compressed, config.rope_dim),
        compute_{kernels, workers, {}, {}, false},
        act_(config, kernels, context, workers.threads(), limits),
        store_(store),
        lookahead_(config.layers, config.experts_used) {
    commit(act_.buffers(), workers);
    batch_.rows.reserve(limits.chunk_tokens);
    batch_.segments.reserve(limits.chunk_tokens);
    batch_.first_rows.reserve(limits.chunk_tokens);
    wanted_rows_.reserve(limits.chunk_tokens);
  }

  std::span<const float> run(std::span<const Segment> segments, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer) {
    if (!run_layers(segments, config_.layers, observer, on_layer)) return {};
    return wanted == LogitRows::kNone ? std::span<const float>() : head(wanted);
  }

  std::optional<StreamRows> run_layers(std::span<const Segment> segments, int32_t layers,
                                       ForwardObserver* observer,
                                       const std::function<bool(int32_t)>& on_layer) {
    take_batch(segments);
    layers_ = layers;
    Step step = this->step();
    expect_hashed();
    embed();
    if (observer != nullptr)
      observer->streams(-1, act_.streams_row(0), act_.streams_stride, batch_.n());
    for (int32_t layer = 0; layer < layers; ++layer) {
      run_layer(step, layer);
      if (store_.has_failed()) break;
      if (observer != nullptr) {
        observer->picks(layer, act_.picks.as<int32_t>(), batch_.n());
        observer->streams(layer, act_.streams_row(0), act_.streams_stride, batch_.n());
      }
      if (on_layer && !on_layer(layer + 1)) {
        store_.abandon();
        return std::nullopt;
      }
    }
    if (store_.has_failed()) {
      store_.abandon();
      return std::nullopt;
    }
    for (const Segment& segment : batch_.segments)
      segment.cache->position += std::ssize(segment.tokens);
    return StreamRows{act_.streams_row(0), act_.streams_stride};
  }

  Compute& compute() { return compute_; }
  ExpertStore& store() { return store_; }
  const Lookahead& lookahead() const { return lookahead_; }
  const Limits& limits() const { return limits_; }
  const Activations& activations() const { return act_; }

 private:
  Step step() { return {config_, limits_, rope_compressed_, compute_, act_, batch_}; }

  void take_batch(std::span<const Segment> segments) {
    batch_.rows.clear();
    batch_.first_rows.clear();
    batch_.segments.assign(segments.begin(), segments.end());
    for (const Segment& segment : segments) {
      const int64_t first = segment.cache->position;
      HEARTH_CHECK(!segment.tokens.empty());
      HEARTH_CHECK(first + std::ssize(segment.tokens) <=
                   std::min(segment.cache->context(), context_));
      batch_.first_rows.push_back(batch_.n());
      for (int64_t i = 0; i < std::ssize(segment.tokens); ++i) {
        HEARTH_CHECK(segment.tokens[i] >= 0 && segment.tokens[i] < config_.vocab);
        batch_.rows.push_back({segment.tokens[i], first + i, segment.cache});
      }
    }
    HEARTH_CHECK(batch_.n() > 0 && batch_.n() <= limits_.chunk_tokens);
    // A row that decodes must not depend on its neighbours, so one of them binds the whole step.
    compute_.prefill = std::ranges::all_of(
        segments, [](const Segment& segment) { return segment.tokens.size() > 1; });
  }

  // The experts of hash-routed layers follow from the tokens, so they are known before their layers
  // begin.
  void expect_hashed() {
    ExpertCache* cache = store_.cache();
    if (cache == nullptr) return;
    for (int32_t layer = 0; layer < std::min(config_.hash_layers, layers_); ++layer) {
      const std::vector<int32_t>& table = weights_.layers[layer].moe.hash_table;
      for (const BatchRow& row : batch_.rows) {
        for (int32_t k = 0; k < config_.experts_used; ++k) {
          cache->expect(layer, table[int64_t{row.token} * config_.experts_used + k]);
        }
      }
    }
    cache->poll();
  }

  // Asks for the layer's experts, then for those that the next one may need: nearly all where a
  // long prompt passes, else what is guessed for a single token.
  void begin_experts(Step& step, int32_t layer) {
    const int32_t* picks = act_.picks.as<int32_t>();
    store_.begin_layer(layer, {batch_.n(), config_.experts_used, picks});
    ExpertCache* cache = store_.cache();
    if (cache == nullptr) return;
    lookahead_.settle(layer, picks, batch_.n());
    const int32_t next = layer + 1;
    if (next >= layers_) return;
    if (int64_t{batch_.n()} * config_.experts_used >= kPicksToTouchAll * config_.experts) {
      for (int32_t expert = 0; expert < config_.experts; ++expert) cache->expect(next, expert);
    } else if (batch_.n() == 1 && next >= config_.hash_layers) {
      lookahead_.guess(step, layer, weights_.layers[next].moe, *cache);
    }
  }

  // Every stream of a row starts as the token's embedding; the row's rotations follow from its
  // position.
  void embed() {
    const StageTimer timer(compute_.clock[Stage::kEmbedding]);
    const Matrix& table = weights_.embedding;
    const int64_t bytes = row_bytes(table.type, table.cols);
    compute_.clock[Stage::kEmbedding].bytes += batch_.n() * bytes;
    compute_.workers.for_range(batch_.n(), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        float* streams = act_.streams_row(static_cast<int32_t>(row));
        dequantize(table.type, table.data + batch_.rows[row].token * bytes, config_.dim, streams);
        for (int32_t s = 1; s < config_.streams; ++s) {
          std::copy_n(streams, config_.dim, streams + s * config_.dim);
        }
        fill_angles(rope_plain_, act_.plain_angles, row);
        fill_angles(rope_compressed_, act_.compressed_angles, row);
      }
    });
  }

  void fill_angles(const RopeTable& table, RopeAngles& angles, int64_t row) {
    const int64_t at = row * table.pairs();
    float* sines = angles.sines.as<float>() + at;
    table.angles(batch_.rows[row].position, angles.cosines.as<float>() + at, sines);
    for (int32_t i = 0; i < table.pairs(); ++i) angles.minus_sines.as<float>()[at + i] = -sines[i];
  }

  void run_layer(Step& step, int32_t layer) {
    const LayerWeights& weights = weights_.layers[layer];
    enter_hyper_connection(step, weights.attention_hyper, weights.attention.norm);
    attention(step, layer, weights.attention);
    leave_hyper_connection(step);
    store_.poll();

    enter_hyper_connection(step, weights.moe_hyper, weights.moe.norm);
    route(step, layer, weights.moe);
    begin_experts(step, layer);
    experts(step, layer, weights.moe, store_);
    lookahead_.experts_done();
    leave_hyper_connection(step);
  }

  std::span<const float> head(LogitRows wanted) {
    Step step = this->step();
    const StageTimer timer(compute_.clock[Stage::kHead]);
    list_wanted_rows(batch_, wanted, wanted_rows_);
    const int64_t n = std::ssize(wanted_rows_);
    HEARTH_CHECK(n <= limits_.logit_rows);
    mix_head_streams(step, weights_.head_hyper, weights_.head_norm, wanted_rows_);
    ActivationRows& x = act_.head_x.rows();
    round_rows_for(compute_, weights_.output, x, n);
    const Product logits{weights_.output, &x, nullptr, n, act_.logits.as<float>(), config_.vocab};
    multiply(compute_, compute_.clock[Stage::kHead], {&logits, 1});
    return {act_.logits.as<float>(), static_cast<size_t>(n * config_.vocab)};
  }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Limits limits_;
  const int64_t context_;
  const RopeTable rope_plain_;
  const RopeTable rope_compressed_;
  Compute compute_;
  Activations act_;
  ExpertStore& store_;
  Lookahead lookahead_;
  Batch batch_;
  int32_t layers_ = 0;  // of this run
  std::vector<int32_t> wanted_rows_;
};

Forward::Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
                 const Workers& workers, int64_t context, const Limits& limits,
                 std::unique_ptr<ExpertCache> cache)
    : own_store_(std::make_unique<ExpertStore>(layer_experts(weights), config.experts,
                                               config.experts_used, limits.chunk_tokens,
                                               std::move(cache))),
      pass_(std::make_unique<Pass>(config, weights, kernels, workers, context, limits,
                                   *own_store_)) {}
Forward::Forward(const ModelConfig& config, const ModelWeights& weights, const Kernels& kernels,
                 const Workers& workers, int64_t context, const Limits& limits, ExpertStore& store)
    : pass_(std::make_unique<Pass>(config, weights, kernels, workers, context, limits, store)) {}
Forward::~Forward() = default;

int32_t Forward::chunk_tokens() const { return pass_->limits().chunk_tokens; }

std::span<const float> Forward::run(std::span<const Segment> segments, LogitRows wanted,
                                    ForwardObserver* observer,
                                    const std::function<bool(int32_t)>& on_layer) {
  return pass_->run(segments, wanted, observer, on_layer);
}

std::optional<StreamRows> Forward::run_layers(std::span<const Segment> segments, int32_t layers,
                                              ForwardObserver* observer,
                                              const std::function<bool(int32_t)>& on_layer) {
  return pass_->run_layers(segments, layers, observer, on_layer);
}

std::optional<ReadFailure> Forward::take_failure() { return pass_->store().take_failure(); }
double Forward::guess_precision(int32_t layer) const { return pass_->lookahead().precision(layer); }
ExpertCache* Forward::cache() { return pass_->store().cache(); }

StageClock& Forward::clock() { return pass_->compute().clock; }
int64_t Forward::scratch_bytes() const { return pass_->activations().bytes(); }

}  // namespace hearth
