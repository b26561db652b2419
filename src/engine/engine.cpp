#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "engine/engine_plan.h"
#include "engine/runner.h"
#include "format/gguf.h"
#include "model/weights.h"
#include "offload/machine/team.h"
#include "offload/machine/topology.h"
#include "offload/store/open_cache.h"
#include "offload/store/weight_memory.h"

namespace hearth {
namespace {

constexpr int64_t kDefaultContext = 32768;

Limits follow(const Plan& plan, Limits limits) {
  limits.chunk_tokens = plan.placement.chunk_tokens;
  return limits;
}

// What the plan has in memory; the rest stays in the mapped files. Experts that only the CPU
// reads, and that stay, are laid out as its kernels like them best.
WeightMemory load_weights(const Plan& plan, TensorDir& dir, const Kernels& kernels,
                          const Workers& workers,
                          const std::function<void(int64_t, int64_t)>& on_load) {
  const std::optional<HeldWeights> held = held_weights(plan);
  if (!held) return {};
  WeightMemory memory(dir, *held, workers, Topology::of_this_machine(), on_load);
  // Where that is refused the cache says so: it asks for the same.
  if (uses_cache(plan)) memory.lock();
  if (held->experts && kernels.reads_interleaved) {
    memory.interleave_experts(dir, workers, held->dense_layers);
  }
  return memory;
}

OpenCache open_cache(const Plan& plan, const TensorDir& dir, const ModelConfig& config,
                     const ModelWeights& weights, const Workers& workers, const Limits& limits) {
  if (!uses_cache(plan)) return {};
  const CacheOptions options{config.experts, plan.ram.experts, limits.experts_read_ahead,
                             workers.shares()};
  return open_expert_cache(dir, layer_experts(weights), options, Topology::of_this_machine());
}

// "expert 17 of layer 3 can't be read".
Error read_error(const ReadFailure& failure, const TensorDir& dir) {
  const std::string why = failure.error == ENODATA ? "the file ends before it"
                                                   : std::generic_category().message(failure.error);
  return Error(
      fmt::format("expert {} of layer {} can't be read: {}", failure.expert, failure.layer, why),
      dir.files[failure.file].path.string(),
      "Check the disk, and that nothing changes the file meanwhile");
}

// What the plan has in memory at first. Throws Error where it can't be read.
void load_experts(Runner& runner, const Plan& plan, const TensorDir& dir, int32_t experts,
                  const std::function<void(int64_t, int64_t)>& on_load) {
  const std::vector<int32_t> keys = first_in_cache(plan, experts);
  if (const auto failure = runner.load_experts(keys, on_load)) throw read_error(*failure, dir);
}

// Every problem of the file, before the long work of loading it.
ModelConfig check_model(const TensorDir& dir, const std::string& source) {
  ModelConfig config = read_config(dir, source);
  bind_weights(dir, config, source);
  return config;
}

Tokenizer read_tokenizer(const TensorDir& dir, const ModelConfig& config,
                         const std::string& source) {
  Tokenizer tokenizer(dir, source);
  if (config.vocab < tokenizer.vocab_size()) {
    throw Error(fmt::format("the vocabulary has {} tokens, the embedding {} rows",
                            tokenizer.vocab_size(), config.vocab),
                source, "Get the file again");
  }
  return tokenizer;
}

// The GPU that may be used. Throws Error where VRAM was asked for and there is none.
FoundDevice find_gpu(const EngineOptions& options) {
  if (!options.use_gpu || options.gpu_budget == 0) return {nullptr, "none is to be used"};
  if (options.plan && !options.plan->placement.uses_gpu()) return {nullptr, "the plan uses none"};
  FoundDevice found = options.open_gpu();
  if (found.device == nullptr && options.gpu_budget) {
    throw Error("there is no GPU: " + found.why_not, "--gpu-budget", "Leave it out");
  }
  return found;
}

}  // namespace

int64_t choose_context(int64_t wanted, const ModelConfig& config) {
  if (wanted == 0) return std::min(kDefaultContext, config.context);
  if (wanted < 1 || wanted > config.context) {
    throw usage_error(fmt::format("a context of {} tokens is not possible", wanted), "--ctx",
                      fmt::format("This model takes 1 to {}", config.context));
  }
  return wanted;
}

struct Engine::Loaded {
  Loaded(const EngineOptions& options)
      : source(options.model.string()),
        dir(open_gguf(options.model)),
        config(check_model(dir, source)),
        tokenizer(read_tokenizer(dir, config, source)),
        chat(find_chat_tokens(tokenizer)),
        chat_profile(find_chat_profile(dir)),
        kernels(kernels_for(options)),
        gpu(find_gpu(options)),
        plan(plan_for(options, {dir, config, source}, gpu.device.get())),
        workers(make_team(plan.shares(), Topology::of_this_machine())),
        limits(follow(plan, options.limits)),
        weight_memory(load_weights(plan, dir, kernels, workers, options.on_load)),
        weights(bind_weights(dir, config, source)),
        cache(open_cache(plan, dir, config, weights, workers, limits)),
        runner(make_runner(
            options, {config, weights, kernels, workers, options.kv, plan.work.context, limits})) {
    if (ExpertCache* experts = runner->cache()) {
      load_experts(*runner, plan, dir, config.experts, options.on_load);
      workers.set_between_pieces([experts] { experts->poll(); });
    }
  }

  std::unique_ptr<Runner> make_runner(const EngineOptions& options, const RunnerParts& parts) {
    if (!plan.placement.uses_gpu()) return make_host_runner(parts, std::move(cache.cache));
    PinnedCache pinned_cache = pin_experts();
    VramShare share = {config.layers - plan.placement.gpu_layers,
                       {},
                       first_in_vram(plan, config.experts),
                       plan.placement.entries_in_ram ? EntriesIn::kHost : EntriesIn::kDevice,
                       plan.work.parallel,
                       plan.vram.budget - plan.vram.used};
    for (const LayerPlan& layer : plan.layers) share.counts.push_back(layer.vram_experts);
    const LinkRates rates = link_rates(options, plan, *gpu.device, layer_experts(weights));
    return make_device_runner(parts, *gpu.device, share, rates, std::move(pinned_cache));
  }

  // Experts in memory are copied into VRAM while the model runs: pinned, without the host's help.
  PinnedCache pin_experts() {
    PinnedCache result{std::move(cache.cache), {}};
    if (result.cache != nullptr) {
      const std::span<unsigned char> slots = result.cache->memory();
      pin(slots, result.slots);
    } else if (plan.ram.experts > 0) {
      for (const Buffer& run : weight_memory.runs()) {
        PinnedRange range;
        if (!pin({run.data(), run.bytes()}, range)) break;
        pinned.push_back(std::move(range));
      }
    }
    return result;
  }

  bool pin(std::span<unsigned char> memory, PinnedRange& range) {
    Pinning pinning = gpu.device->pin(memory.data(), memory.size());
    if (!pinning.why_not.empty()) {
      cache.notes.push_back(
          "the experts in memory can't be pinned, so their copies to the GPU hold up the CPU: " +
          pinning.why_not);
      return false;
    }
    range = std::move(pinning.range);
    return true;
  }

  const std::string source;
  TensorDir dir;
  const ModelConfig config;
  const Tokenizer tokenizer;
  const ChatSupport chat;
  const ChatProfile chat_profile;
  const Kernels& kernels;
  const FoundDevice gpu;
  const Plan plan;
  Workers workers;
  const Limits limits;
  WeightMemory weight_memory;
  std::vector<PinnedRange> pinned;  // of it
  const ModelWeights weights;
  OpenCache cache;
  const std::unique_ptr<Runner> runner;
};

Engine::Engine() = default;
Engine::~Engine() = default;

std::unique_ptr<Engine> Engine::open(const EngineOptions& options) {
  std::unique_ptr<Engine> engine(new Engine);
  engine->loaded_ = std::make_unique<Loaded>(options);
  return engine;
}

const ModelConfig& Engine::config() const { return loaded_->config; }
const Tokenizer& Engine::tokenizer() const { return loaded_->tokenizer; }
const ChatSupport& Engine::chat() const { return loaded_->chat; }
ChatProfile Engine::chat_profile() const { return loaded_->chat_profile; }
int64_t Engine::context() const { return loaded_->plan.work.context; }
const Kernels& Engine::kernels() const { return loaded_->kernels; }
const Workers& Engine::workers() const { return loaded_->workers; }
int64_t Engine::memory_bytes() const {
  const ExpertCache* cache = loaded_->runner->cache();
  return loaded_->weight_memory.bytes() + (cache != nullptr ? cache->bytes() : 0) +
         loaded_->runner->scratch_bytes();
}
int32_t Engine::chunk_tokens() const { return loaded_->limits.chunk_tokens; }
int32_t Engine::logit_rows() const { return loaded_->limits.logit_rows; }
StageClock& Engine::clock() { return loaded_->runner->clock(); }
void Engine::set_timing(bool on) { loaded_->runner->set_timing(on); }
double Engine::vram_hit_rate() const { return loaded_->runner->vram_hit_rate(); }
void Engine::clear_figures() { loaded_->runner->clear_figures(); }
const ExpertCache* Engine::cache() const { return loaded_->runner->cache(); }
double Engine::guess_precision(int32_t layer) const {
  return loaded_->runner->guess_precision(layer);
}
const std::vector<std::string>& Engine::notes() const { return loaded_->cache.notes; }

const TensorDir& Engine::tensors() const { return loaded_->dir; }
const Plan& Engine::plan() const { return loaded_->plan; }
const Device* Engine::gpu() const {
  return loaded_->plan.placement.uses_gpu() ? loaded_->gpu.device.get() : nullptr;
}
const std::string& Engine::why_no_gpu() const {
  static const std::string kNotPlanned =
      "the plan uses none, as not even one layer fits it or the CPU is as fast";
  return loaded_->gpu.device != nullptr ? kNotPlanned : loaded_->gpu.why_not;
}
bool Engine::reads_files() const { return !loaded_->plan.fits(); }
int64_t Engine::weight_bytes() const { return tensor_bytes(loaded_->dir); }

std::unique_ptr<Session> Engine::new_session() {
  return std::unique_ptr<Session>(new Session(*this, context()));
}

std::span<const float> Engine::step(std::span<const Feed> feeds, LogitRows wanted,
                                    ForwardObserver* observer,
                                    const std::function<bool(int32_t)>& on_layer) {
  std::vector<SequenceFeed> sequences;
  for (const Feed& feed : feeds) sequences.push_back({feed.session->sequence_.get(), feed.tokens});
  std::span<const float> logits;
  advance(feeds, on_layer, [&](const std::function<bool(int32_t)>& guard) {
    logits = loaded_->runner->run(sequences, wanted, observer, guard);
  });
  return logits;
}

LogitRow* Engine::step_to_row(const Feed& feed, const std::function<bool(int32_t)>& on_layer) {
  LogitRow* row = nullptr;
  advance({&feed, 1}, on_layer, [&](const std::function<bool(int32_t)>& guard) {
    row = loaded_->runner->run_to_row({feed.session->sequence_.get(), feed.tokens}, guard);
  });
  return row;
}

// What a step makes of the sessions that it feeds; `run` takes what it is to call after each layer.
void Engine::advance(std::span<const Feed> feeds, const std::function<bool(int32_t)>& on_layer,
                     const std::function<void(const std::function<bool(int32_t)>&)>& run) {
  bool stopped = false;
  std::function<bool(int32_t)> guard;
  if (on_layer) guard = [&](int32_t layers) { return !(stopped = !on_layer(layers)); };
  run(guard);
  const std::optional<ReadFailure> failure = loaded_->runner->take_failure();
  for (const Feed& feed : feeds) {
    if (stopped || failure) {
      feed.session->clear();
    } else {
      feed.session->tokens_.insert(feed.session->tokens_.end(), feed.tokens.begin(),
                                   feed.tokens.end());
    }
  }
  if (failure) throw read_error(*failure, loaded_->dir);
}

Session::Session(Engine& engine, int64_t context)
    : engine_(engine), sequence_(engine.loaded_->runner->new_sequence(context)) {}
Session::~Session() = default;

int64_t Session::context() const { return sequence_->context(); }
int64_t Session::bytes() const { return sequence_->bytes(); }

void Session::clear() {
  sequence_->clear();
  tokens_.clear();
}

std::span<const float> Session::feed(std::span<const int32_t> tokens, const Progress& on_progress) {
  std::span<const float> logits;
  feed_chunks(tokens, on_progress, [&](const Feed& last, const LayerProgress& on_layer) {
    logits = engine_.step({&last, 1}, LogitRows::kLast, nullptr, on_layer);
  });
  return logits;
}

LogitRow* Session::feed_to_row(std::span<const int32_t> tokens, const Progress& on_progress) {
  LogitRow* row = nullptr;
  feed_chunks(tokens, on_progress, [&](const Feed& last, const LayerProgress& on_layer) {
    row = engine_.step_to_row(last, on_layer);
  });
  return row;
}

// `run_last` takes the last chunk, unless an earlier one was stopped.
void Session::feed_chunks(std::span<const int32_t> tokens, const Progress& on_progress,
                          const std::function<void(const Feed&, const LayerProgress&)>& run_last) {
  check_tokens(tokens);
  const int64_t total = std::ssize(tokens);
  for (int64_t done = 0; done < total;) {
    const int64_t n = std::min<int64_t>(engine_.chunk_tokens(), total - done);
    const Feed chunk{this, tokens.subspan(done, n)};
    bool goes_on = true;
    LayerProgress on_layer;
    if (on_progress) {
      on_layer = [&](int32_t layers) {
        return goes_on = on_progress(done + n * layers / engine_.config().layers, total);
      };
    }
    done += n;
    if (done == total) return run_last(chunk, on_layer);
    engine_.step({&chunk, 1}, LogitRows::kNone, nullptr, on_layer);
    if (!goes_on) return;
  }
}

void Session::check_tokens(std::span<const int32_t> tokens) const {
  if (std::ssize(tokens_) + std::ssize(tokens) > context()) {
    throw Error(fmt::format("{} tokens do not fit: {} of the context of {} are taken",
                            tokens.size(), tokens_.size(), context()),
                "context", "Choose a larger context (--ctx) or a shorter text");
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= engine_.config().vocab) {
      throw Error(
          fmt::format("token {} is not in the vocabulary of {}", token, engine_.config().vocab),
          "tokens", "Use ids this model knows");
    }
  }
}

}  // namespace hearth
