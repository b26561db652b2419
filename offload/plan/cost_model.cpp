#include "offload/plan/cost_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace hearth {

namespace {

// Loops over the cores in a layer on the CPU.
constexpr double kCpuLoops = 24;
// What sampling reads of a token of the vocabulary: its logit, for the largest and for the sum.
constexpr double kSampledBytes = 8;
// How experts are read: pieces of this size, so many at once (offload/io/reader.h).
constexpr double kReadBytes = 2 << 20, kReadsAtOnce = 16;
// Prompts are long; the attention of this many of their chunks stands for all.
constexpr int64_t kChunksSampled = 16;

void add_gpu(const BoundSeconds& seconds, double times, Cost& cost) {
  cost.add(Resource::kGpuMemory, times * seconds.memory);
  cost.add(Resource::kGpuCores, times * seconds.arithmetic);
}

// The sum over positions p of [first, first + n) of min(p / ratio, most).
double sum_of_rows(double first, double n, double ratio, double most) {
  const double full_from = std::clamp(most * ratio, first, first + n);
  const double rising = full_from - first;
  return (first + full_from) / 2 * rising / ratio + (n - rising) * most;
}

}  // namespace

const char* resource_name(Resource resource) {
  constexpr std::array<const char*, kResources> kNames = {
      "memory bandwidth", "CPU arithmetic", "GPU memory bandwidth", "GPU arithmetic",
      "host link",        "disk",           "synchronisation"};
  return kNames[static_cast<int>(resource)];
}

double Cost::total() const {
  double sum = 0;
  for (const double s : seconds) sum += s;
  return sum;
}

Resource Cost::bottleneck() const {
  return static_cast<Resource>(std::ranges::max_element(seconds) - seconds.begin());
}

Resource Cost::runner_up() const {
  const int first = static_cast<int>(bottleneck());
  int second = first == 0 ? 1 : 0;
  for (int r = 0; r < kResources; ++r) {
    if (r != first && busy(static_cast<Resource>(r)) > busy(static_cast<Resource>(second))) {
      second = r;
    }
  }
  return static_cast<Resource>(second);
}

void Cost::add(const Cost& more, double times) {
  for (int r = 0; r < kResources; ++r) {
    seconds[r] += times * more.seconds[r];
    beside[r] += times * more.beside[r];
  }
  missed += times * more.missed;
  sent += times * more.sent;
}

const DiskRate* streaming_rate(const Disk& disk) {
  const auto distance = [](const DiskRate& rate) {
    const double block = std::log2(static_cast<double>(rate.block_bytes) / kReadBytes);
    const double depth = std::log2(static_cast<double>(rate.depth) / kReadsAtOnce);
    return std::pair(std::abs(block), std::abs(depth));
  };
  const auto nearest = std::ranges::min_element(disk.rates, {}, distance);
  return nearest == disk.rates.end() ? nullptr : &*nearest;
}

double disk_read_gb_s(const Machine& machine) {
  double total = 0;
  for (const Disk& disk : machine.disks) {
    const DiskRate* rate = streaming_rate(disk);
    total += rate == nullptr ? 0 : rate->read_gb_s;
  }
  return total;
}

int64_t disk_capacity_bytes(const Machine& machine) {
  int64_t total = 0;
  for (const Disk& disk : machine.disks) {
    if (disk.capacity_bytes == 0) return 0;
    total += disk.capacity_bytes;
  }
  return total;
}

struct CostModel::Layers {
  const LayerShape* shape;
  double count;
  bool on_gpu;
};

// Tokens that pass through a layer together: of a prompt, neighbours from `position` on; else one
// of each session.
struct CostModel::Tokens {
  double n;
  double position;
  bool neighbours;

  // Rows that all of them see together where `ratio` tokens share one, at most `most` each.
  double rows(double ratio, double most) const {
    if (neighbours) return sum_of_rows(position + 1, n, ratio, most);
    return n * std::min((position + 1) / ratio, most);
  }
};

CostModel::Tokens CostModel::one_each(const Workload& work) {
  return {static_cast<double>(work.parallel), static_cast<double>(work.depth), false};
}

CostModel::CostModel(const Machine& machine, const ModelShape& model, const CpuRates& cpu,
                     const Gpu* gpu, const HitCurve& hits)
    : machine_(machine),
      model_(model),
      cpu_(cpu),
      gpu_(gpu),
      gpu_rates_(gpu == nullptr ? std::nullopt : std::optional<GpuRates>(*gpu)),
      hits_(hits) {
  disk_gb_s_ = disk_read_gb_s(machine);
}

std::vector<CostModel::Layers> CostModel::layers_of(const Placement& placement) const {
  std::vector<Layers> groups;
  const auto count = static_cast<int32_t>(model_.layers.size());
  for (int32_t i = 0; i < count; ++i) {
    const LayerShape& layer = model_.layers[i];
    const bool on_gpu = placement.on_gpu(i, count);
    const auto same = std::ranges::find_if(groups, [&](const Layers& group) {
      return group.on_gpu == on_gpu && group.shape->ratio == layer.ratio &&
             group.shape->dense_bytes == layer.dense_bytes && group.shape->hashed == layer.hashed &&
             group.shape->expert_bytes == layer.expert_bytes;
    });
    if (same == groups.end()) {
      groups.push_back({&layer, 1, on_gpu});
    } else {
      same->count += 1;
    }
  }
  return groups;
}

void CostModel::add_dense(const Layers& layers, const Tokens& tokens, Cost& cost) const {
  const LayerShape& layer = *layers.shape;
  // Streams are mixed before and after each of two sub-layers; queries and outputs are normed,
  // rotated and rounded. Of an expert gate, up and what becomes of them; it reads its tokens' rows
  // twice in 16 bits, and its outputs are summed later.
  const double values = 2.0 * (2 * model_.streams + 2) * model_.dim +
                        4.0 * model_.heads * model_.head_dim +
                        model_.experts_used * (3.0 * model_.expert_dim + 1.5 * model_.dim);
  const double passed = tokens.n * values * 2 * sizeof(float);
  if (layers.on_gpu) {
    BoundSeconds seconds = gpu_rates_->multiply(layer.dense, tokens.n, tokens.neighbours);
    seconds.memory += gpu_rates_->pass(passed);
    add_gpu(seconds, layers.count, cost);
    cost.add(Resource::kWaiting,
             layers.count * gpu_rates_->layer_kernels(layer.ratio, tokens.neighbours));
    return;
  }
  const BoundSeconds products = cpu_.multiply(layer.dense, tokens.n);
  cost.add(Resource::kMemory, layers.count * products.memory);
  cost.add(Resource::kCores, layers.count * products.arithmetic);
  const double cores = std::min(tokens.n, static_cast<double>(cpu_.threads()));  // a token a core
  cost.add(Resource::kMemory, layers.count * cpu_.pass(passed) * cpu_.threads() / cores);
  cost.add(Resource::kWaiting, layers.count * cpu_.loops(kCpuLoops));
}

void CostModel::add_attention(const Layers& layers, const Placement& placement,
                              const Tokens& tokens, Cost& cost) const {
  const int32_t ratio = layers.shape->ratio;
  const bool selects = layers.shape->selects_rows();
  const double keys = selects ? tokens.rows(4, 1e18) : 0;
  double compressed = selects ? tokens.rows(4, model_.index_top_k) : 0;
  if (ratio == 128) compressed = tokens.rows(128, 1e18);
  const double rows = tokens.rows(1, model_.window) + compressed;
  const double attention_flops = 4 * rows * model_.heads * model_.head_dim;
  const double index_flops = 2 * keys * model_.index_heads * model_.index_dim;
  const auto value_bytes = static_cast<double>(model_.kv_value_bytes);
  if (!layers.on_gpu) {
    cost.add(Resource::kCores,
             layers.count * cpu_.attend(attention_flops + index_flops, tokens.neighbours));
    return;
  }
  const bool is_scored = keys > tokens.n * model_.index_top_k;
  const AttentionWork work{ratio, tokens.n, attention_flops, is_scored ? index_flops : 0, keys};
  cost.add(Resource::kGpuCores, layers.count * gpu_rates_->attend(work, tokens.neighbours));
  if (placement.entries_in_ram && selects) {
    // Blocks of one token's heads run together and read the same rows, neighbours of a prompt much
    // the same: the GPU's cache asks for each once, so a layer's rows cross the link once a chunk.
    const double visible = (tokens.position + tokens.n) / ratio;
    const double read = tokens.neighbours ? std::min(compressed, visible) : compressed;
    const double sent = read * model_.head_dim * value_bytes;
    cost.add(Resource::kLink, layers.count * sent / (gpu_->to_gpu_gb_s * 1e9));
  }
}

HeldShares held_shares(const ModelShape& model, const Placement& placement) {
  const auto all = static_cast<double>(model.expert_count());
  const double reachable = static_cast<double>(model.experts) * placement.gpu_layers;
  const auto vram = static_cast<double>(placement.vram_experts);
  const auto ram = static_cast<double>(placement.ram_experts);
  HeldShares held;
  held.vram = reachable > 0 ? vram / reachable : 0;
  held.gpu_layers = held.cpu_layers = (vram + ram) / all;
  if (held.vram > held.gpu_layers) {  // more than an even share: RAM is left to the other layers
    held.gpu_layers = held.vram;
    held.cpu_layers = ram / (all - reachable);
  }
  return held;
}

ExpertTimes CostModel::expert_times(const Placement& placement, const LayerShape& layer,
                                    bool on_gpu, const ExpertWork& work) const {
  ExpertTimes times;
  if (work.in_vram > 0) {
    add_gpu(gpu_rates_->multiply_experts(layer.expert, work.tokens_each, work.prompt), work.in_vram,
            times.on_gpu);
  }
  if (work.elsewhere > 0) add_others(placement, layer, on_gpu, work, times);
  return times;
}

void CostModel::add_others(const Placement& placement, const LayerShape& layer, bool on_gpu,
                           const ExpertWork& work, ExpertTimes& times) const {
  const double experts = work.elsewhere;
  const BoundSeconds each =
      cpu_.multiply(layer.expert, work.tokens_each, placement.interleaves_experts(on_gpu));
  const double on_cpu = experts * each.total();
  times.beside_copies = on_cpu;
  if (!on_gpu) {
    times.on_host.add(Resource::kMemory, experts * each.memory);
    times.on_host.add(Resource::kCores, experts * each.arithmetic);
    return;
  }
  // Part of them may go over the link instead: both ways then take equally long.
  const double bytes = experts * static_cast<double>(layer.expert_bytes);
  const double link = bytes / (gpu_->to_gpu_gb_s * 1e9);
  const double slower = machine_.read_gb_s / std::max(gpu_->cpu_read_beside_link_gb_s, 1e-9);
  const double link_beside = bytes / (gpu_->to_gpu_beside_cpu_gb_s * 1e9);
  const double cpu_beside = std::max(experts * each.memory * slower, on_cpu);
  const double both = cpu_beside * link_beside / (cpu_beside + link_beside);
  const double best = std::min({on_cpu, link, both});
  times.beside_copies = cpu_beside;
  times.on_host.add(best == link                    ? Resource::kLink
                    : each.memory > each.arithmetic ? Resource::kMemory
                                                    : Resource::kCores,
                    best);
  if (best == on_cpu) return;
  times.sent = best == link ? 1 : both / link_beside;
  if (work.prompt) {
    add_gpu(gpu_rates_->multiply_experts(layer.expert, work.tokens_each, true),
            times.sent * experts, times.on_gpu);
  }
}

double CostModel::exchange_seconds(double bytes) const {
  return bytes / (std::min(gpu_->to_gpu_beside_cpu_gb_s, gpu_->to_host_gb_s) * 1e9);
}

void CostModel::add_experts(const Layers& layers, const Placement& placement, const Tokens& tokens,
                            Outlook outlook, double dense_seconds, Cost& cost) const {
  const LayerShape& layer = *layers.shape;
  const double experts = model_.experts;
  const double picks = tokens.n * model_.experts_used;
  const double touched =
      experts * (1 - std::pow(1 - model_.experts_used / experts, std::max(tokens.n, 1.0)));
  const double tokens_each = picks / touched;

  auto served = [&](double held) {
    // A chunk touches nearly every expert, so it finds there what is held.
    if (tokens.neighbours) return std::min(held, 1.0);
    const HitRate rate = hits_.at(held);
    return outlook == Outlook::kLow    ? rate.low
           : outlook == Outlook::kHigh ? rate.high
                                       : rate.likely;
  };
  const HeldShares held = held_shares(model_, placement);
  const double in_vram = layers.on_gpu ? served(held.vram) : 0;
  const double in_memory = served(layers.on_gpu ? held.gpu_layers : held.cpu_layers);

  const double hits = touched * in_vram, misses = touched - hits;
  const double from_disk = touched * (1 - in_memory);
  const auto bytes = static_cast<double>(layer.expert_bytes);
  const ExpertTimes times =
      expert_times(placement, layer, layers.on_gpu, {hits, misses, tokens_each, tokens.neighbours});
  Cost on_disk;
  if (from_disk > 0) {
    // A token's hash-routed experts are asked for when its step begins. What arrives last is then
    // still to be computed.
    const double early = layer.hashed ? dense_seconds : 0;
    const double reading = from_disk * bytes / (std::max(disk_gb_s_, 1e-9) * 1e9);
    const double last = (times.on_host.total() / std::max(misses, 1.0)) * std::min(from_disk, 1.0);
    on_disk.add(Resource::kDisk, std::max(reading - early, 0.0) + last);
  }
  const std::array<const Cost*, 3> sides = {&times.on_host, &times.on_gpu, &on_disk};
  const Cost* longest =
      *std::ranges::max_element(sides, {}, [](const Cost* c) { return c->total(); });
  for (const Cost* side : sides) {
    for (int r = 0; r < kResources; ++r) {
      (side == longest ? cost.seconds : cost.beside)[r] += layers.count * side->seconds[r];
    }
  }
  if (layers.on_gpu) {
    cost.missed += layers.count * misses;
    cost.sent += layers.count * misses * times.sent;
    const double chance = 1 - std::pow(in_vram, picks);
    cost.add(Resource::kWaiting, layers.count * chance * sync_seconds());
  }
}

// From the CPU's last layer to the GPU's first one, where both have some.
void CostModel::add_crossing(const Placement& placement, const Tokens& tokens, Cost& cost) const {
  if (!placement.uses_gpu() || placement.gpu_layers == std::ssize(model_.layers)) return;
  const double bytes = tokens.n * model_.streams * model_.dim * sizeof(float);
  cost.add(Resource::kLink, bytes / (gpu_->to_gpu_gb_s * 1e9));
  cost.add(Resource::kWaiting, gpu_->sync_us * 1e-6);
}

void CostModel::add_head(const Placement& placement, int32_t rows, Cost& cost) const {
  // One thread reads the logits.
  const double sampled = static_cast<double>(rows) * model_.vocab * kSampledBytes;
  cost.add(Resource::kCores, cpu_.pass(sampled) * cpu_.threads());
  if (placement.uses_gpu()) {
    add_gpu(gpu_rates_->multiply(model_.head, rows, false), 1, cost);
    const double logit_bytes = static_cast<double>(rows) * model_.vocab * sizeof(float);
    cost.add(Resource::kLink, logit_bytes / (gpu_->to_host_gb_s * 1e9));
    cost.add(Resource::kWaiting, gpu_rates_->head_kernels(false) + sync_seconds());
    return;
  }
  const BoundSeconds products = cpu_.multiply(model_.head, rows);
  cost.add(Resource::kMemory, products.memory);
  cost.add(Resource::kCores, products.arithmetic);
}

Cost CostModel::layer_step(const Placement& placement, const Workload& work, int32_t layer) const {
  Cost cost;
  const auto layers = std::ssize(model_.layers);
  const Layers one = {&model_.layers[layer], 1, placement.on_gpu(layer, layers)};
  const Tokens tokens = one_each(work);
  if (layer == layers - placement.gpu_layers) add_crossing(placement, tokens, cost);
  add_dense(one, tokens, cost);
  add_attention(one, placement, tokens, cost);
  return cost;
}

Cost CostModel::head_step(const Placement& placement, const Workload& work) const {
  Cost cost;
  add_head(placement, work.parallel, cost);
  return cost;
}

Cost CostModel::decode_step(const Placement& placement, const Workload& work,
                            Outlook outlook) const {
  Cost cost;
  const Tokens tokens = one_each(work);
  for (const Layers& layers : layers_of(placement)) {
    const double before = cost.total();
    add_dense(layers, tokens, cost);
    add_attention(layers, placement, tokens, cost);
    add_experts(layers, placement, tokens, outlook, (cost.total() - before) / layers.count, cost);
  }
  add_crossing(placement, tokens, cost);
  add_head(placement, work.parallel, cost);
  return cost;
}

void CostModel::add_chunk(const Placement& placement, int64_t position, int64_t tokens,
                          double times, Cost& cost) const {
  Cost chunk;
  const Tokens rows{static_cast<double>(tokens), static_cast<double>(position), true};
  for (const Layers& layers : layers_of(placement)) {
    add_dense(layers, rows, chunk);
    add_attention(layers, placement, rows, chunk);
    add_experts(layers, placement, rows, Outlook::kLikely, 0, chunk);
  }
  add_crossing(placement, rows, chunk);
  cost.add(chunk, times);
}

Cost CostModel::prompt(const Placement& placement, const Workload& work) const {
  Cost cost;
  const int64_t chunk = placement.chunk_tokens;
  const int64_t whole = work.prompt / chunk, rest = work.prompt % chunk;
  const int64_t samples = std::min(whole, kChunksSampled);
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t number = (2 * i + 1) * whole / (2 * samples);
    add_chunk(placement, number * chunk, chunk,
              static_cast<double>(whole) / static_cast<double>(samples), cost);
  }
  if (rest > 0) add_chunk(placement, whole * chunk, rest, 1, cost);
  add_head(placement, 1, cost);
  return cost;
}

double CostModel::decode_tok_s(const Placement& placement, const Workload& work,
                               Outlook outlook) const {
  return work.parallel / decode_step(placement, work, outlook).total();
}

double CostModel::prefill_tok_s(const Placement& placement, const Workload& work) const {
  return static_cast<double>(work.prompt) / prompt(placement, work).total();
}

}  // namespace hearth
