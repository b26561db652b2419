#include "offload/sim/decode_clock.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "offload/sim/expert_tiers.h"
#include "offload/sim/predictor.h"
#include "offload/sim/transfer_queue.h"

namespace hearth {
namespace {

// Copies into VRAM that may wait for the link: half of the staging a plan sets aside.
constexpr double kCopiesWaiting = 16;
constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr uint64_t kGuessSeed = 0x67756573, kStallSeed = 0x7374616c;  // apart from each other

// A layer's times, all of one expert but the first.
struct LayerTimes {
  Cost dense;
  Cost on_gpu, on_host;
  double gpu_seconds = 0, host_seconds = 0;
  double host_beside_copies = 0;
  double sent = 0;  // share of the host's experts that passes over the link anyway
  double exchange = 0;
  double sync = 0;
  double bytes = 0;
  bool gpu = false;
  bool hashed = false;
};

LayerTimes times_of(const CostModel& costs, const ModelShape& model, const Plan& plan,
                    int32_t layer) {
  const LayerShape& shape = model.layers[layer];
  LayerTimes times;
  times.gpu = plan.layers[layer].dense_in_vram;
  times.hashed = shape.hashed;
  times.bytes = static_cast<double>(shape.expert_bytes);
  times.dense = costs.layer_step(plan.placement, plan.work, layer);
  const ExpertTimes experts =
      costs.expert_times(plan.placement, shape, times.gpu, {times.gpu ? 1.0 : 0.0, 1, 1, false});
  times.on_gpu = experts.on_gpu;
  times.on_host = experts.on_host;
  times.gpu_seconds = experts.on_gpu.total();
  times.host_seconds = experts.on_host.total();
  times.host_beside_copies = experts.beside_copies;
  times.sent = experts.sent;
  if (times.gpu) {
    times.sync = costs.sync_seconds();
    times.exchange = costs.exchange_seconds(times.bytes);
  }
  return times;
}

// Of a read from a disk with nothing else to do.
double disk_latency(const Machine& machine, int64_t expert_bytes) {
  double longest = 0;
  for (const Disk& disk : machine.disks) {
    double least = kNever;
    for (const DiskRate& rate : disk.rates) {
      if (rate.block_bytes <= expert_bytes) least = std::min(least, rate.latency_us * 1e-6);
    }
    if (least != kNever) longest = std::max(longest, least);
  }
  return longest;
}

int64_t largest_expert(const ModelShape& model) {
  return std::ranges::max_element(model.layers, {}, &LayerShape::expert_bytes)->expert_bytes;
}

class DecodeClock {
 public:
  DecodeClock(const Machine& machine, const ModelShape& model, const Plan& plan,
              const CostModel& costs, const Accesses& accesses, const Residency& residency,
              const ClockSettings& settings)
      : accesses_(accesses),
        settings_(settings),
        head_(costs.head_step(plan.placement, plan.work)),
        tiers_({accesses.layers, accesses.experts},
               planned_tiers(plan, accesses.experts, residency.popularity),
               residency.make_policy ? residency.make_policy() : nullptr,
               residency.make_policy ? residency.make_policy() : nullptr),
        // Blocks of a read go to all disks, in proportion to their speed.
        disk_(costs.disk_gb_s() * 1e9, disk_latency(machine, largest_expert(model))),
        predictor_(settings.prefetch, accesses.experts, settings.seed ^ kGuessSeed),
        stalls_(settings.seed ^ kStallSeed),
        asked_(accesses.layers),
        arrival_(accesses.pairs(), kNever),
        copied_(accesses.pairs(), kNever) {
    for (int32_t layer = 0; layer < accesses.layers; ++layer) {
      layers_.push_back(times_of(costs, model, plan, layer));
    }
    for (int32_t key = 0; key < accesses.pairs(); ++key) {
      if (tiers_.of(key) == Tier::kVram) copied_[key] = 0;
    }
    total_.disk_profile_gb_s = costs.disk_gb_s();
  }

  ClockResult run() {
    const int64_t tokens = accesses_.steps() / accesses_.layers;
    const auto warm_up = static_cast<int64_t>(settings_.warm_up * static_cast<double>(tokens));
    for (int64_t token = 0; token < tokens; ++token) {
      if (token == warm_up) start_measuring();
      run_token(token * accesses_.layers);
    }
    total_.tokens = tokens - warm_up;
    total_.seconds = now_ - measured_from_;
    total_.disk_bytes = disk_.bytes();
    total_.disk_busy = disk_.busy_seconds();
    return total_;
  }

 private:
  struct HostExpert {
    double arrival;
    int32_t key;
    bool wanted_in_vram;
  };

  void start_measuring() {
    const double rate = total_.disk_profile_gb_s;
    total_ = {};
    total_.disk_profile_gb_s = rate;
    disk_.restart_counting();
    measured_from_ = now_;
  }

  void run_token(int64_t first_step) {
    for (int32_t layer = 0; layer < accesses_.layers; ++layer) {
      if (!layers_[layer].hashed) continue;
      for (const int32_t key : accesses_.step(first_step + layer)) ask_early(layer, key);
    }
    for (int32_t layer = 0; layer < accesses_.layers; ++layer) run_layer(first_step + layer, layer);
    spend(head_);
  }

  void run_layer(int64_t step, int32_t layer) {
    const LayerTimes& times = layers_[layer];
    spend(times.dense);
    const std::span<const int32_t> keys = accesses_.step(step);
    tiers_.use(layer, times.gpu, keys, found_, entered_);
    for (const int32_t key : entered_) copied_[key] = kNever;
    const int64_t on_gpu = divide(times, keys);
    if (layer + 1 < accesses_.layers) guess(layer + 1, accesses_.step(step + 1));
    compute(times, on_gpu);
    forget(layer);
  }

  // Who computes which expert, and what is asked of the disk. Returns how many the GPU has; the
  // host's follow in the order they arrive.
  int64_t divide(const LayerTimes& times, std::span<const int32_t> keys) {
    host_.clear();
    int64_t on_gpu = 0;
    for (size_t i = 0; i < keys.size(); ++i) {
      const int32_t key = keys[i];
      total_.vram_hits += found_[i] == Tier::kVram;
      total_.ram_hits += found_[i] == Tier::kRam;
      if (found_[i] == Tier::kVram && copied_[key] <= now_) {
        ++on_gpu;
        continue;
      }
      total_.late_hits += found_[i] == Tier::kVram;
      double arrival = now_;
      if (found_[i] == Tier::kDisk) {
        if (arrival_[key] == kNever) arrival_[key] = read(times.bytes);
        arrival = std::max(now_, arrival_[key]);
      }
      const bool wanted = tiers_.of(key) == Tier::kVram && copied_[key] == kNever;
      host_.push_back({arrival, key, wanted});
    }
    total_.uses += std::ssize(keys);
    std::ranges::stable_sort(host_, {}, &HostExpert::arrival);
    return on_gpu;
  }

  void compute(const LayerTimes& times, int64_t on_gpu) {
    const double gpu_busy = static_cast<double>(on_gpu) * times.gpu_seconds;
    double host_end = now_, host_busy = 0;
    sent_.clear();
    for (const HostExpert& expert : host_) {
      copy(times, expert);
      const double start = std::max(host_end, expert.arrival);
      const bool copies = times.gpu && times.sent == 0 && link_free_ > start;
      const double each = copies ? times.host_beside_copies : times.host_seconds;
      host_end = start + each;
      host_busy += each;
    }
    const double end = std::max(host_end, now_ + gpu_busy);
    const double computing = std::max(gpu_busy, host_busy);
    add_scaled(gpu_busy > host_busy ? times.on_gpu : times.on_host, computing);
    total_.cost.add(Resource::kDisk, std::max(end - now_ - computing, 0.0));
    now_ = end;
    for (const int32_t key : sent_) copied_[key] = now_;
    if (times.gpu && !host_.empty()) {
      total_.cost.add(Resource::kWaiting, times.sync);
      now_ += times.sync;
    }
  }

  // Brings an expert into VRAM that has its place there: for nothing where the link carries it to
  // be computed anyway, else behind the copies that wait.
  void copy(const LayerTimes& times, const HostExpert& expert) {
    if (times.sent > 0) {
      sent_part_ += times.sent;
      if (sent_part_ < 1) return;
      sent_part_ -= 1;
      if (!expert.wanted_in_vram) return;
      sent_.push_back(expert.key);
      total_.exchanged_bytes += times.bytes;
      return;
    }
    if (!expert.wanted_in_vram) return;
    if (link_free_ - expert.arrival > kCopiesWaiting * times.exchange) return;
    link_free_ = std::max(link_free_, expert.arrival) + times.exchange;
    copied_[expert.key] = link_free_;
    total_.exchanged_bytes += times.bytes;
  }

  void guess(int32_t layer, std::span<const int32_t> keys) {
    if (settings_.prefetch <= 0 || layers_[layer].hashed) return;
    predictor_.guess(layer * accesses_.experts, keys, guesses_);
    for (const int32_t key : guesses_) {
      ++total_.guesses;
      total_.right_guesses += std::ranges::find(keys, key) != keys.end();
      ask_early(layer, key);
    }
  }

  void ask_early(int32_t layer, int32_t key) {
    if (tiers_.of(key) != Tier::kDisk || arrival_[key] != kNever) return;
    arrival_[key] = read(layers_[layer].bytes);
    asked_[layer].push_back(key);
  }

  // The layer is done: what was read for it and not used was read for nothing.
  void forget(int32_t layer) {
    for (const HostExpert& expert : host_) arrival_[expert.key] = kNever;
    for (const int32_t key : asked_[layer]) {
      if (arrival_[key] != kNever) total_.wasted_bytes += layers_[layer].bytes;
      arrival_[key] = kNever;
    }
    asked_[layer].clear();
  }

  double read(double bytes) {
    const bool stalls = settings_.stall_seconds > 0 && stalls_.uniform() < settings_.stall_share;
    return disk_.submit(now_, bytes, stalls ? settings_.stall_seconds : 0);
  }

  void spend(const Cost& cost) {
    for (int r = 0; r < kResources; ++r) total_.cost.seconds[r] += cost.seconds[r];
    now_ += cost.total();
  }

  // Seconds in the proportions of `cost`.
  void add_scaled(const Cost& cost, double seconds) {
    const double whole = cost.total();
    if (whole <= 0) return;
    for (int r = 0; r < kResources; ++r) {
      total_.cost.seconds[r] += cost.seconds[r] / whole * seconds;
    }
  }

  const Accesses& accesses_;
  const ClockSettings settings_;
  const Cost head_;
  std::vector<LayerTimes> layers_;
  ExpertTiers tiers_;
  TransferQueue disk_;
  Predictor predictor_;
  RoutingRandom stalls_;

  double now_ = 0, measured_from_ = 0;
  double link_free_ = 0;                     // when the copies that wait are done
  double sent_part_ = 0;                     // of an expert, that the link still owes
  std::vector<std::vector<int32_t>> asked_;  // [layers] reads asked for before their layer
  std::vector<double> arrival_;              // [pairs] of reads under way; kNever: none
  std::vector<double> copied_;  // [pairs] when what is in VRAM is there; kNever: no copy is asked
  std::vector<Tier> found_;     // of a layer, as the following
  std::vector<int32_t> entered_, guesses_, sent_;
  std::vector<HostExpert> host_;
  ClockResult total_;
};

}  // namespace

uint64_t ClockResult::hash() const {
  const int64_t counts[] = {tokens, uses, vram_hits, ram_hits, late_hits, guesses, right_guesses};
  const double sums[] = {seconds, disk_bytes, wasted_bytes, disk_busy, exchanged_bytes};
  ResultHash hash;
  hash.add(std::span<const int64_t>(counts));
  hash.add(std::span<const double>(sums));
  hash.add(std::span<const double>(cost.seconds));
  return hash.value();
}

ClockResult simulate_decode(const Machine& machine, const ModelShape& model, const Plan& plan,
                            const CostModel& costs, const Accesses& accesses,
                            const Residency& residency, const ClockSettings& settings) {
  HEARTH_CHECK(plan.fits() && plan.work.parallel == 1);
  HEARTH_CHECK(accesses.layers == std::ssize(model.layers) && accesses.experts == model.experts);
  HEARTH_CHECK(settings.warm_up >= 0 && settings.warm_up < 1);
  if (accesses.steps() < accesses.layers) {
    throw Error("holds no token to decode", "the routing trace", "Record a longer text");
  }
  return DecodeClock(machine, model, plan, costs, accesses, residency, settings).run();
}

}  // namespace hearth
