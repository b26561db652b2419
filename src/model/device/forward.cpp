#include "model/device/forward.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <vector>

#include "base/check.h"
#include "model/cache_reads.h"
#include "model/device/exchange.h"
#include "model/device/expert_stream.h"
#include "model/device/logit_row.h"
#include "model/device/replay.h"
#include "model/device/slab.h"
#include "model/device/step.h"

namespace hearth {
namespace {

int64_t scratch_bytes(const ModelConfig& config, const GpuKernels& kernels,
                      const DeviceSizes& sizes) {
  Slab counting;
  take_scratch(counting, config, kernels, sizes);
  return counting.bytes();
}

// The table that steps bring rows of: none where their streams come from the host's layers.
Matrix embedding_of(const Matrix& embedding, int32_t first_layer) {
  return first_layer == 0 ? embedding : Matrix{embedding.type, 0, 0, nullptr};
}

}  // namespace

class DeviceForward::Pass {
 public:
  Pass(const DeviceModel& model, int64_t context, const Limits& limits)
      : device_(model.device),
        config_(model.config),
        weights_(model.weights),
        routed_(model.routed),
        elsewhere_(model.elsewhere),
        context_(context),
        limits_(limits),
        first_layer_(model.first_layer),
        stream_(device_.create_stream()),
        layer_done_{device_.create_event(), device_.create_event()},
        inputs_(device_, config_, embedding_of(model.embedding, first_layer_), limits),
        meter_(device_, stream_),
        replay_(device_, stream_, meter_.clock()) {
    const DeviceSizes sizes{context, limits_, weights_.rounds_streams};
    memory_ =
        allocate_for(device_, "activations", scratch_bytes(config_, device_.kernels(), sizes));
    Slab slab(memory_.data());
    act_ = take_scratch(slab, config_, device_.kernels(), sizes);
    logits_ = device_.allocate_pinned(sizes.logit_rows() * config_.vocab * sizeof(float));
    row_.emplace(device_, stream_, config_.vocab, act_.logits, act_.row_summary,
                 logits_.as<float>());
    if (elsewhere_ != nullptr) exchange_.emplace(device_, config_, limits_.chunk_tokens);
    if (elsewhere_ != nullptr && model.sending) {
      sent_.emplace(device_, *model.sending, config_.experts, limits_);
    }
    masked_picks_.resize(int64_t{limits_.chunk_tokens} * config_.experts_used);
    list_group_rows();
  }

  std::span<const float> run(std::span<const DeviceSegment> segments, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer,
                             const StreamRows& streams) {
    const std::optional<int64_t> rows = enqueue(segments, wanted, observer, on_layer, streams);
    if (!rows) return {};
    const auto result = *rows == 0 ? std::span<const float>() : bring_logits(*rows);
    meter_.end_step();
    if (*rows > 0) device_.synchronize(stream_);
    return result;
  }

  LogitRow* run_to_row(const DeviceSegment& segment, const std::function<bool(int32_t)>& on_layer,
                       const StreamRows& streams) {
    if (!enqueue({&segment, 1}, LogitRows::kLast, nullptr, on_layer, streams)) return nullptr;
    meter_.end_step();
    row_->renew();
    return &*row_;
  }

  int64_t give_back_experts(int64_t bytes) { return routed_.shrink(bytes, stream_); }

  int32_t chunk_tokens() const { return limits_.chunk_tokens; }
  int64_t bytes() const {
    return inputs_.bytes() + static_cast<int64_t>(memory_.bytes()) + (sent_ ? sent_->bytes() : 0);
  }
  int64_t pinned_bytes() const {
    return inputs_.pinned_bytes() + static_cast<int64_t>(logits_.bytes()) + row_->pinned_bytes() +
           (exchange_ ? exchange_bytes(config_, limits_.chunk_tokens) : 0) +
           (sent_ ? expert_stream_pinned_bytes(config_.experts, limits_) : 0);
  }
  StageMeter& meter() { return meter_; }

 private:
  // A step, with its logits in act_.logits. Returns how many rows of them; nothing where it ended
  // early.
  std::optional<int64_t> enqueue(std::span<const DeviceSegment> segments, LogitRows wanted,
                                 ForwardObserver* observer,
                                 const std::function<bool(int32_t)>& on_layer,
                                 const StreamRows& streams) {
    check_segments(segments);
    routed_.begin_step(stream_);
    meter_.begin_step();
    meter_.mark(Stage::kEmbedding);  // its rows come with the step's inputs
    const DeviceBatch& batch = inputs_.upload(segments, wanted, stream_);
    if (first_layer_ > 0) inputs_.bring_streams(streams, act_.streams.values, stream_);
    const RoutedRows routed{config_.dim, config_.experts_used};
    act_.picks = routed.picks(act_.x.values, batch.n);
    act_.pick_weights = routed.weights(act_.x.values, batch.n);
    const DeviceStep step{config_, weights_, device_.kernels(), stream_.handle(), act_,
                          batch,   meter_};
    replay_.begin(kind_of(batch), observer == nullptr && !meter_.timing() && batch.run_max == 1);
    replay_.piece([&] { embed(step); });
    if (observer != nullptr && first_layer_ == 0) show(step, -1, *observer);
    for (int32_t layer = first_layer_; layer < config_.layers; ++layer) {
      run_layer(step, layer);
      if (elsewhere_ != nullptr && elsewhere_->store().has_failed()) {
        device_.synchronize(stream_);  // copies out of what was lent may be under way
        elsewhere_->store().abandon();
        return std::nullopt;
      }
      if (observer != nullptr) show(step, layer, *observer);
      if (on_layer && !report(layer, on_layer)) return std::nullopt;
    }
    if (on_layer && !report(config_.layers, on_layer)) return std::nullopt;
    for (const DeviceSegment& segment : segments) {
      segment.cache->position += std::ssize(segment.tokens);
    }
    routed_.end_step();
    if (wanted != LogitRows::kNone) replay_.piece([&] { head(step); });
    replay_.end();
    return batch.wanted;
  }

  void check_segments(std::span<const DeviceSegment> segments) const {
    int64_t n = 0;
    for (const DeviceSegment& segment : segments) {
      n += std::ssize(segment.tokens);
      HEARTH_CHECK(segment.cache->position + std::ssize(segment.tokens) <=
                   std::min(segment.cache->room(), context_));
      for (const int32_t token : segment.tokens) HEARTH_CHECK(token >= 0 && token < config_.vocab);
    }
    HEARTH_CHECK(n > 0 && n <= limits_.chunk_tokens);
  }

  StepKind kind_of(const DeviceBatch& batch) const {
    StepKind kind{batch.n, batch.sequences, batch.wanted, batch.index_entries, batch.kv_type, {}};
    for (int32_t i = 0; i < config_.layers; ++i) kind.has_gap.push_back(!routed_.holds_all(i));
    return kind;
  }

  void run_layer(const DeviceStep& step, int32_t layer) {
    const DeviceMoe& weights = weights_.layers[layer].moe;
    const DeviceExperts routed{routed_.gate(layer), routed_.up(layer), routed_.down(layer)};
    count_cache_reads(step, layer);
    if (routed_.holds_all(layer)) {
      count_routed(routed, step.batch.n, step.batch.n * config_.experts_used);
      replay_.piece([&] {
        run_to_router(step, layer);
        experts(step, layer, weights, routed);
        sum_experts(step, routed, nullptr);
        leave_hyper_connection(step);
      });
      return;
    }
    HEARTH_CHECK(elsewhere_ != nullptr);
    replay_.piece([&] {
      run_to_router(step, layer);
      exchange_->bring(act_, step.batch.n, stream_);
    });
    exchange_->mark(stream_);
    replay_.piece([&] { experts(step, layer, weights, routed); });
    meter_.pause();
    const BroughtRows rows = exchange_->wait(step.batch.n);
    const bool sends = choose_sent(layer, step.batch, rows);
    count_routed(routed, step.batch.n, begin_elsewhere(layer, step.batch, rows, sends));
    compute_elsewhere(step, layer, sends);
    const auto end_with = [&](const DeviceExperts& there) {
      meter_.mark(Stage::kRoutedExperts);
      exchange_->send(act_.elsewhere, step.batch.n, stream_);
      sum_experts(step, there, act_.elsewhere);
      leave_hyper_connection(step);
    };
    const std::function<void()> with_sent = [&] { end_with(sent_->on_device()); };
    replay_.piece([&] { end_with(routed); }, sends ? with_sent : nullptr);
  }

  void run_to_router(const DeviceStep& step, int32_t layer) {
    const DeviceLayer& weights = weights_.layers[layer];
    enter_hyper_connection(step, weights.attention_hyper, weights.attention.norm);
    attention(step, layer);
    leave_hyper_connection(step);

    enter_hyper_connection(step, weights.moe_hyper, weights.moe.norm);
    route(step, weights.moe);
  }

  // What depends on the rows' positions, which steps of one kind do not share.
  void count_cache_reads(const DeviceStep& step, int32_t layer) {
    const LayerKind kind = config_.kinds[layer];
    for (const GpuRow& row : step.batch.host_rows) {
      count_attention(config_, kind, row.position, step.batch.kv_type,
                      meter_.clock()[Stage::kAttention]);
      if (kind != LayerKind::kCsa) continue;
      count_index_scores(config_, row.position, step.batch.kv_type,
                         meter_.clock()[Stage::kIndexer]);
    }
  }

  // `picks` of n rows that the device computes. Rows may share experts, and how many do the host
  // need not know: bytes are counted of a row alone.
  void count_routed(const DeviceExperts& routed, int64_t n, int64_t picks) {
    StageTotals& totals = meter_.clock()[Stage::kRoutedExperts];
    for (const GpuExpertMatrices* w : {&routed.gate, &routed.up, &routed.down}) {
      count_product(totals, w->type, w->rows, w->cols, picks, n == 1 ? picks : 0);
    }
  }

  // Whether any are sent of those that the device doesn't hold.
  bool choose_sent(int32_t layer, const DeviceBatch& batch, const BroughtRows& rows) {
    if (!sent_) return false;
    const auto picks = static_cast<size_t>(batch.n * config_.experts_used);
    sent_->choose(layer, {rows.picks, picks}, routed_, elsewhere_->store());
    return !sent_->sent().empty();
  }

  // What isn't sent is the host's. Returns how many picks are of experts on the device.
  int64_t begin_elsewhere(int32_t layer, const DeviceBatch& batch, const BroughtRows& rows,
                          bool sends) {
    const int64_t picks = batch.n * config_.experts_used;
    routed_.use(layer, static_cast<int32_t>(batch.n), config_.experts_used, rows.picks);
    int64_t on_device = 0;
    for (int64_t i = 0; i < picks; ++i) {
      const int32_t pick = rows.picks[i];
      const bool is_held = routed_.holds(layer, pick);
      masked_picks_[i] = is_held ? -1 : pick;
      on_device += is_held || (sends && sent_->sends(pick));
    }
    elsewhere_->begin(layer, {batch.n, rows.x, masked_picks_.data(),
                              sends ? sent_->sent() : std::span<const int32_t>(), rows.weights,
                              batch.prefill, exchange_->sums()});
    return on_device;
  }

  // While the device computes the experts that it holds or is sent. What is sent from the disk goes
  // on its way as soon as it has arrived.
  void compute_elsewhere(const DeviceStep& step, int32_t layer, bool sends) {
    StageTotals& totals = meter_.clock()[Stage::kHostExperts];
    if (!sends) {
      elsewhere_->run(totals);
      return;
    }
    ExpertStore& store = elsewhere_->store();
    const auto send = [&] {
      sent_->run(stream_, store,
                 [&](const DeviceExperts& some) { routed_experts(step, layer, some); });
    };
    sent_->begin(stream_);
    send();
    elsewhere_->run(totals, std::ref(send));
    while (!sent_->is_done() && store.wait()) send();
    HEARTH_CHECK(sent_->is_done() || store.has_failed());
  }

  // Layer number `layer` is enqueued or, behind the last, none: waits for the one before it.
  bool report(int32_t layer, const std::function<bool(int32_t)>& on_layer) {
    if (layer < config_.layers) device_.record(layer_done_[layer % 2], stream_);
    if (layer == first_layer_) return true;
    device_.synchronize(layer_done_[(layer - 1) % 2]);
    return on_layer(layer);
  }

  void show(const DeviceStep& step, int32_t layer, ForwardObserver& observer) {
    const int64_t n = step.batch.n, width = act_.streams.width;
    std::vector<float> streams(n * width);
    std::vector<int32_t> picks(n * config_.experts_used);
    const auto bytes_of = [](const auto& values) { return std::span(values).size_bytes(); };
    device_.copy_to_host(streams.data(), act_.streams.values, bytes_of(streams), stream_);
    if (layer >= 0) device_.copy_to_host(picks.data(), act_.picks, bytes_of(picks), stream_);
    device_.synchronize(stream_);
    if (layer >= 0) observer.picks(layer, picks.data(), n);
    observer.streams(layer, streams.data(), width, n);
  }

  // Enqueues their copy.
  std::span<const float> bring_logits(int64_t rows) {
    const size_t count = static_cast<size_t>(rows * config_.vocab);
    device_.copy_to_host(logits_.data(), act_.logits, count * sizeof(float), stream_);
    return {logits_.as<float>(), count};
  }

  // Row i * groups + g of the attention's output is the one of group g.
  void list_group_rows() {
    std::vector<int32_t> rows;
    for (int32_t g = 0; g < config_.output_groups; ++g) {
      for (int32_t i = 0; i < limits_.chunk_tokens; ++i) {
        rows.push_back(i * config_.output_groups + g);
      }
    }
    device_.copy_to_device(act_.group_rows, rows.data(), rows.size() * sizeof(int32_t), stream_);
    device_.synchronize(stream_);
  }

  Device& device_;
  const ModelConfig& config_;
  const DeviceWeights& weights_;
  VramTier& routed_;
  HostExperts* const elsewhere_;
  const int64_t context_;
  const Limits limits_;
  const int32_t first_layer_;
  Stream stream_;
  std::array<Event, 2> layer_done_;  // of the layers of even and of odd number
  StepInputs inputs_;
  StageMeter meter_;
  Replay replay_;
  DeviceBuffer memory_;
  DeviceScratch act_{};
  PinnedBuffer logits_;
  std::optional<DeviceLogitRow> row_;  // the first of them
  std::optional<Exchange> exchange_;   // where experts are computed elsewhere
  std::optional<ExpertStream> sent_;   // where some of these are sent
  std::vector<int32_t> masked_picks_;  // [n, experts_used], negative for those held
};

DeviceForward::DeviceForward(const DeviceModel& model, int64_t context, const Limits& limits)
    : pass_(std::make_unique<Pass>(model, context, limits)) {}
DeviceForward::~DeviceForward() = default;

int32_t DeviceForward::chunk_tokens() const { return pass_->chunk_tokens(); }
int64_t DeviceForward::bytes() const { return pass_->bytes(); }
int64_t DeviceForward::pinned_bytes() const { return pass_->pinned_bytes(); }
StageClock& DeviceForward::clock() { return pass_->meter().clock(); }
void DeviceForward::set_timing(bool on) { pass_->meter().set_timing(on); }

std::span<const float> DeviceForward::run(std::span<const DeviceSegment> segments, LogitRows wanted,
                                          ForwardObserver* observer,
                                          const std::function<bool(int32_t)>& on_layer,
                                          const StreamRows& streams) {
  return pass_->run(segments, wanted, observer, on_layer, streams);
}

int64_t DeviceForward::give_back_experts(int64_t bytes) { return pass_->give_back_experts(bytes); }

LogitRow* DeviceForward::run_to_row(const DeviceSegment& segment,
                                    const std::function<bool(int32_t)>& on_layer,
                                    const StreamRows& streams) {
  return pass_->run_to_row(segment, on_layer, streams);
}

DeviceTraits traits_of(const ModelWeights& weights, int32_t first_layer) {
  return {embedding_of(weights.embedding, first_layer), rounds_streams(weights, first_layer)};
}

int64_t device_forward_pinned_bytes(const ModelConfig& config, const DeviceTraits& traits,
                                    const Limits& limits) {
  const DeviceSizes sizes{0, limits, traits.rounds_streams};
  return step_input_pinned_bytes(config, traits.embedding, limits) +
         sizes.logit_rows() * config.vocab * int64_t{sizeof(float)} +
         logit_row_pinned_bytes(config.vocab) + exchange_bytes(config, limits.chunk_tokens) +
         expert_stream_pinned_bytes(config.experts, limits);
}

int64_t device_forward_bytes(const ModelConfig& config, const GpuKernels& kernels,
                             const DeviceTraits& traits, int64_t context, const Limits& limits) {
  return step_input_bytes(config, traits.embedding, limits) +
         scratch_bytes(config, kernels, {context, limits, traits.rounds_streams});
}

}  // namespace hearth
