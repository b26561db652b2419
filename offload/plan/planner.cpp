#include "offload/plan/planner.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/units.h"
#include "offload/plan/memory_map.h"

namespace hearth {
namespace {

constexpr int32_t kChunkMin = 64, kChunkMax = 16384;
constexpr double kPromptToAnswer = 8;  // new tokens of a request, at most, by those of its answer
constexpr double kNever = 1e300;
constexpr double kWorthwhile = 0.02;  // of the time that something took before

struct Budgets {
  int64_t vram = 0;
  int64_t ram = 0;
};

Budgets budgets_of(const Machine& machine, const Gpu* gpu, const PlanRequest& request) {
  const int64_t memory = machine.memory_bytes();
  Budgets budgets;
  budgets.ram = request.ram_budget.value_or(memory - memory_reserve_bytes(memory));
  if (gpu != nullptr) {
    budgets.vram = std::min(request.gpu_budget.value_or(gpu->memory_bytes), gpu->memory_bytes);
  }
  return budgets;
}

// Bytes of KV cache in the fastest tier beyond those allowed there.
int64_t kv_over_budget(const PlanRequest& request, const MemoryMap& map, const Placement& at) {
  const int64_t kv = at.uses_gpu() ? map.vram.kv : map.ram.kv;
  return std::max<int64_t>(kv - request.kv_budget.value_or(kv), 0);
}

// Chunks worth trying: longer ones than the prompt or the context are of no use.
std::vector<int32_t> chunk_sizes(const PlanRequest& request) {
  const int64_t context = std::max<int64_t>(request.work.context, kChunkMin);
  if (request.chunk_tokens > 0) {
    return {static_cast<int32_t>(std::min<int64_t>(request.chunk_tokens, context))};
  }
  std::vector<int32_t> sizes;
  for (int32_t size = kChunkMin; size <= kChunkMax && size < 2 * context; size *= 2) {
    sizes.push_back(static_cast<int32_t>(std::min<int64_t>(size, context)));
  }
  return sizes;
}

struct Candidate {
  Placement placement;
  MemoryMap map;
  ChunkBytes chunk;
  double seconds = 0;   // of the workload
  double prompts = 0;   // seconds of these, before answers begin
  int64_t lacking = 0;  // bytes that have no place
};

class Search {
 public:
  Search(const ModelShape& model, const PlanRequest& request, const CostModel& costs,
         const Budgets& budgets, bool has_gpu, bool has_disk)
      : model_(model),
        request_(request),
        costs_(costs),
        budgets_(budgets),
        has_gpu_(has_gpu),
        has_disk_(has_disk) {}

  Candidate run(int32_t threads) {
    const auto layers = static_cast<int32_t>(model_.layers.size());
    for (const int32_t size : chunk_sizes(request_)) {
      const ChunkBytes chunk = chunk_bytes(model_, request_.work, size, threads);
      for (int32_t on_gpu = has_gpu_ ? layers : 0; on_gpu >= 0; --on_gpu) {
        if (on_gpu < layers && has_what_was_asked()) break;
        try_placement(chunk, on_gpu, false);
        if (on_gpu > 0) try_placement(chunk, on_gpu, true);
      }
    }
    return best_;
  }

 private:
  // Of VRAM that a person gave: it is used where it suffices.
  bool has_what_was_asked() const {
    return request_.for_engine && request_.gpu_budget && found_ && best_.lacking == 0 &&
           best_.placement.gpu_layers == std::ssize(model_.layers);
  }

  void try_placement(const ChunkBytes& chunk, int32_t gpu_layers, bool entries_in_ram) {
    Candidate candidate;
    candidate.chunk = chunk;
    candidate.placement.chunk_tokens = chunk.chunk_tokens;
    candidate.placement.gpu_layers = gpu_layers;
    candidate.placement.entries_in_ram = entries_in_ram;
    candidate.map = map_fixed(model_, chunk, candidate.placement, request_.work.parallel,
                              budgets_.vram, budgets_.ram);
    place_experts(model_, candidate.map, candidate.placement);
    candidate.lacking = lacking(candidate);
    if (candidate.lacking > 0) {
      if (!found_ || (best_.lacking > 0 && candidate.lacking < best_.lacking)) keep(candidate);
      return;
    }
    double limit = found_ && best_.lacking == 0 ? best_.seconds : kNever;
    // Longer chunks take memory and can't be interrupted as soon, so they must be worth it. Answers
    // are the same with all of them.
    if (best_.placement.chunk_tokens < chunk.chunk_tokens) limit -= kWorthwhile * best_.prompts;
    // What the link takes with each token hangs on what the GPU's cache does with it.
    if (entries_in_ram && !best_.placement.entries_in_ram) limit -= kWorthwhile * best_.seconds;
    const double answers = answer_seconds(candidate.placement);
    if (answers >= limit) return;
    candidate.prompts = prompt_seconds(candidate.placement);
    candidate.seconds = answers + candidate.prompts;
    if (candidate.seconds < limit) keep(candidate);
  }

  int64_t lacking(const Candidate& candidate) const {
    const auto over = [](const TierPlan& tier) {
      return std::max<int64_t>(tier.used - tier.budget, 0);
    };
    int64_t bytes = over(candidate.map.vram) + over(candidate.map.ram) +
                    kv_over_budget(request_, candidate.map, candidate.placement);
    if (!has_disk_) bytes += candidate.placement.nvme_experts * model_.layers[0].expert_bytes;
    return bytes;
  }

  // Of a long prompt only a part is new in each request: what was read stays in the cache.
  static double prompts_counted(const Workload& work) {
    if (work.answer == 0) return 1;
    return std::min(
        1.0, kPromptToAnswer * static_cast<double>(work.answer) / static_cast<double>(work.prompt));
  }

  // Of the requests of all sessions.
  double answer_seconds(const Placement& placement) const {
    const Workload& work = request_.work;
    return static_cast<double>(work.answer) * costs_.decode_step(placement, work).total();
  }
  double prompt_seconds(const Placement& placement) const {
    const Workload& work = request_.work;
    if (work.prompt == 0) return 0;
    return prompts_counted(work) * work.parallel * costs_.prompt(placement, work).total();
  }

  void keep(const Candidate& candidate) {
    best_ = candidate;
    found_ = true;
  }

  const ModelShape& model_;
  const PlanRequest& request_;
  const CostModel& costs_;
  const Budgets budgets_;
  const bool has_gpu_;
  const bool has_disk_;
  Candidate best_;
  bool found_ = false;
};

void explain_kv_budget(const Candidate& found, const PlanRequest& request, Plan& plan) {
  const int64_t over = kv_over_budget(request, found.map, found.placement);
  if (over == 0) return;
  const bool on_gpu = found.placement.uses_gpu();
  plan.problems.push_back(fmt::format(
      "the KV cache in {} is {} ({} bytes) larger than --kv-budget {}: {}. A larger --kv-budget, a "
      "smaller context (--ctx) or fewer sessions (--parallel) would help",
      on_gpu ? "VRAM" : "RAM", binary_size(over), over, binary_size(*request.kv_budget),
      on_gpu ? "only the compressed rows that a token reads a few of can lie in RAM"
             : "without a GPU it has no other place"));
}

void explain_problems(const Candidate& found, const ModelShape& model, bool has_disk, Plan& plan) {
  const auto tier = [&](const char* name, const char* option, const TierPlan& t,
                        const std::string& more) {
    if (t.used <= t.budget) return;
    plan.problems.push_back(fmt::format(
        "{} lacks {} ({} bytes): {} of weights, {} of KV cache and {} of scratch{} don't fit {}. "
        "A smaller context (--ctx), fewer sessions (--parallel) or a larger {} would help",
        name, binary_size(t.used - t.budget), t.used - t.budget, binary_size(t.weights),
        binary_size(t.kv), binary_size(t.scratch), more, binary_size(t.budget), option));
  };
  tier("VRAM", "--gpu-budget", plan.vram, "");
  // Where not even a token's experts have room, the scratch is theirs and the program's.
  const bool has_slots = found.placement.ram_experts > 0 || found.placement.nvme_experts == 0;
  tier("RAM", "--ram-budget", plan.ram,
       has_slots
           ? ""
           : fmt::format(" ({} of it the program's own, the rest with room for a token's experts)",
                         binary_size(program_bytes(model))));
  if (found.placement.nvme_experts > 0 && !has_disk) {
    plan.problems.push_back(fmt::format(
        "{} of routed experts ({} bytes) have no place in memory, and the profile knows no disk. "
        "Measure one: hearth profile --disk FOLDER",
        binary_size(plan.nvme.used), plan.nvme.used));
  }
}

// Which experts are the ones that lie in VRAM and RAM at first.
std::string explain_first(const ModelShape& model, const PlanRequest& request) {
  if (!request.recorded) {
    const auto tables = std::ranges::count_if(
        model.layers, [](const LayerShape& layer) { return !layer.likely_use.empty(); });
    return fmt::format(
        "no recorded routing says which experts are used most (--trace): each layer has as many "
        "in a tier, in VRAM at first those of the lowest numbers{}",
        tables == 0 ? ""
                    : fmt::format("; where token ids choose, in {} of {} layers, VRAM and RAM "
                                  "begin with those that the tables name for frequent tokens",
                                  tables, model.layers.size()));
  }
  const RecordedUse& recorded = *request.recorded;
  return fmt::format(
      "the experts in VRAM and RAM at first are those that the {} tokens recorded in {} used most; "
      "hit rates are of caches that meet the same tokens",
      recorded.tokens, recorded.source);
}

void explain(const CpuRates& cpu, const ModelShape& model, const PlanRequest& request,
             const ChunkBytes& chunk, Plan& plan) {
  const Placement& at = plan.placement;
  auto say = [&](std::string line) { plan.why.push_back(std::move(line)); };
  if (at.uses_gpu()) {
    say(fmt::format("{} of {} layers have attention, shared experts and index keys in VRAM{}",
                    at.gpu_layers, model.layers.size(),
                    at.entries_in_ram ? "; the compressed rows that a token reads a few of lie "
                                        "in RAM, pinned, and are read over the link"
                                      : ", with all of their KV cache"));
    if (at.gpu_layers < std::ssize(model.layers)) {
      say(
          fmt::format("the CPU computes the first {} layers; what they leave of each token crosses "
                      "the link once a step",
                      std::ssize(model.layers) - at.gpu_layers));
    }
    say(
        fmt::format("{} of {} routed experts fill the rest of VRAM and serve about {:.0f} % of "
                    "the picks",
                    at.vram_experts, model.expert_count(), 100 * plan.predict.vram_hit_rate));
    const int64_t lent = lent_experts(model, chunk, at, request.work.parallel);
    if (lent > 0) {
      say(
          fmt::format("up to {} more lie where cache rows will, until a conversation gets there; "
                      "predictions are without them",
                      lent));
    }
  }
  if (at.nvme_experts == 0) {
    say(fmt::format("{} {} routed experts fit in RAM; no disk is read",
                    at.vram_experts > 0 ? "the other" : "all", at.ram_experts));
  } else {
    say(
        fmt::format("{} routed experts fit in RAM, {} stay on disk: memory serves about {:.0f} % "
                    "of the picks",
                    at.ram_experts, at.nvme_experts, 100 * plan.predict.memory_hit_rate));
  }
  if (plan.divides_experts()) say(explain_first(model, request));
  say(
      fmt::format("prompts are read {} at a time: the longer, the fewer times the experts "
                  "are read, but {} of scratch are taken for it",
                  counted(at.chunk_tokens, "token"),
                  binary_size(at.uses_gpu() ? chunk.device_scratch[at.entries_in_ram][at.gpu_layers]
                                            : chunk.scratch)));
  for (const std::string& format : CpuRates::unknown_formats(cpu.rates(), model)) {
    say(fmt::format("the profile has no rate for {} weights on the CPU; its slowest stands in",
                    format));
  }
}

Prediction predict(const CostModel& costs, const ModelShape& model, const PlanRequest& request,
                   const Placement& placement) {
  Prediction result;
  const Workload& work = request.work;
  result.decode = costs.decode_step(placement, work);
  result.decode_tok_s = work.parallel / result.decode.total();
  // Where a card is slower than the host more hits may cost time.
  const double low = costs.decode_tok_s(placement, work, Outlook::kLow);
  const double high = costs.decode_tok_s(placement, work, Outlook::kHigh);
  result.decode_tok_s_low = std::min({low, high, result.decode_tok_s});
  result.decode_tok_s_high = std::max({low, high, result.decode_tok_s});
  if (work.prompt > 0) {
    result.prefill = costs.prompt(placement, work);
    result.prefill_tok_s = static_cast<double>(work.prompt) / result.prefill.total();
  }
  const HeldShares held = held_shares(model, placement);
  const double on_gpu = placement.gpu_layers / static_cast<double>(model.layers.size());
  const HitCurve& hits = request.hit_curve();
  result.vram_hit_rate = on_gpu * hits.at(held.vram).likely;
  result.memory_hit_rate =
      on_gpu * hits.at(held.gpu_layers).likely + (1 - on_gpu) * hits.at(held.cpu_layers).likely;
  return result;
}

}  // namespace

std::vector<int32_t> spread_threads(const std::vector<MemoryNode>& nodes, int32_t threads) {
  int64_t cores = 0;
  for (const MemoryNode& node : nodes) cores += node.cores;
  const auto with_cores =
      std::ranges::count_if(nodes, [](const MemoryNode& node) { return node.cores > 0; });
  if (with_cores < 2 || threads > cores || nodes.size() > NodeShares::kNodesMax) return {};
  std::vector<int32_t> spread(nodes.size(), 0);
  for (int32_t left = threads; left > 0;) {
    for (size_t i = 0; i < nodes.size() && left > 0; ++i) {
      if (spread[i] < nodes[i].cores) ++spread[i], --left;
    }
  }
  return spread;
}

const Gpu* planned_gpu(const Machine& machine, const PlanRequest& request) {
  if (!request.use_gpu || machine.gpus.empty() || request.gpu_budget == 0) return nullptr;
  return &*std::ranges::max_element(machine.gpus, {}, &Gpu::memory_bytes);
}

int64_t memory_reserve_bytes(int64_t memory_bytes) {
  return std::min(std::max(int64_t{2} << 30, memory_bytes / 25), memory_bytes / 8);
}

Plan make_plan(const Machine& machine, const ModelShape& model, const PlanRequest& request) {
  if (request.recorded) {
    check_routing_shape(request.recorded->shape, request.recorded->source, model.routing(),
                        model.name);
  }
  const CpuRates cpu(machine, request.isa,
                     request.threads > 0 ? request.threads : machine.cpu.cores);
  const Gpu* gpu = planned_gpu(machine, request);
  const CostModel costs(machine, model, cpu, gpu, request.hit_curve());
  const bool has_disk = costs.disk_gb_s() > 0;
  const Candidate found =
      Search(model, request, costs, budgets_of(machine, gpu, request), gpu != nullptr, has_disk)
          .run(cpu.threads());
  Plan plan;
  plan.model = model.name;
  plan.machine = machine.name;
  plan.work = request.work;
  plan.isa = cpu.isa();
  plan.threads = cpu.threads();
  plan.node_threads = spread_threads(machine.nodes, plan.threads);
  plan.kv = request.kv;
  plan.placement = found.placement;
  plan.layers = request.recorded ? rank_experts(model, found.placement, request.recorded->picks)
                                 : spread_experts(model, found.placement);
  MemoryMap map = found.map;
  add_experts(model, plan.layers, map);
  plan.vram = map.vram;
  plan.ram = map.ram;
  plan.nvme = map.nvme;
  plan.weight_bytes = model.weight_bytes();
  plan.routed_bytes = model.routed_bytes();
  plan.kv_bytes = map.vram.kv + map.ram.kv;
  plan.scratch_bytes = map.vram.scratch + map.ram.scratch;
  explain_problems(found, model, has_disk, plan);
  explain_kv_budget(found, request, plan);
  if (plan.fits()) plan.predict = predict(costs, model, request, found.placement);
  explain(cpu, model, request, found.chunk, plan);
  return plan;
}

std::vector<Upgrade> find_upgrades(const Machine& machine, const ModelShape& model,
                                   const PlanRequest& request, const Plan& plan) {
  std::vector<Upgrade> upgrades;
  auto consider = [&](std::string change, const Machine& changed, PlanRequest asked) {
    const Plan other = make_plan(changed, model, asked);
    if (!other.fits()) return;
    constexpr double kWorthSaying = 1.02;
    if (plan.fits() && other.predict.decode_tok_s < kWorthSaying * plan.predict.decode_tok_s &&
        other.predict.prefill_tok_s < kWorthSaying * plan.predict.prefill_tok_s)
      return;
    upgrades.push_back(
        {std::move(change), other.predict.decode_tok_s, other.predict.prefill_tok_s});
  };
  constexpr int64_t kMoreRam = int64_t{64} << 30, kMoreVram = int64_t{16} << 30;
  {
    Machine changed = machine;
    PlanRequest asked = request;
    changed.nodes.front().memory_bytes += kMoreRam;
    if (asked.ram_budget) *asked.ram_budget += kMoreRam;
    consider("+64 GiB RAM", changed, asked);
  }
  if (!machine.gpus.empty() && request.use_gpu) {
    Machine changed = machine;
    PlanRequest asked = request;
    for (Gpu& gpu : changed.gpus) gpu.memory_bytes += kMoreVram;
    if (asked.gpu_budget) *asked.gpu_budget += kMoreVram;
    consider("+16 GiB VRAM", changed, asked);
  }
  if (!machine.disks.empty()) {
    Machine changed = machine;
    changed.disks.push_back(changed.disks.front());
    consider("a second disk like the first", changed, request);
  }
  {
    Machine changed = machine;
    changed.read_gb_s *= 2;
    for (MemoryNode& node : changed.nodes) node.read_gb_s *= 2, node.copy_gb_s *= 2;
    for (IsaRates& isa : changed.cpu.isas) {
      for (FormatRates& format : isa.formats) format.stream_gb_s *= 2;
    }
    for (Gpu& gpu : changed.gpus) gpu.cpu_read_beside_link_gb_s *= 2;
    consider("memory twice as fast", changed, request);
  }
  std::ranges::stable_sort(upgrades, std::greater{}, &Upgrade::decode_tok_s);
  return upgrades;
}

}  // namespace hearth
