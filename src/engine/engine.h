// The door to inference, two nouns: an Engine is a loaded model, a Session is one timeline of
// tokens in it.
//
// One thread owns an Engine and all its Sessions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"
#include "device/device.h"
#include "model/config.h"
#include "model/forward.h"
#include "model/logit_row.h"
#include "model/stages.h"
#include "offload/machine/machine.h"
#include "offload/plan/plan.h"
#include "offload/plan/recorded_use.h"
#include "text/chat_tokens.h"
#include "text/effort.h"
#include "text/tokenizer.h"

namespace hearth {

struct EngineOptions {
  std::filesystem::path model;
  int threads = 0;  // 0: one a physical core; a plan's own where one is given
  std::string isa;  // kernels by name; empty: the fastest this CPU runs
  KvType kv = KvType::kBF16;
  int64_t context = 0;                // tokens of a session; 0: the model's, at most 32768
  int32_t sessions = 1;               // at once
  int32_t chunk_tokens = 0;           // of a prompt taken at once; 0: the plan's choice
  std::optional<int64_t> ram_budget;  // bytes for weights and caches; what is free where absent
  std::optional<int64_t> gpu_budget;  // the same of VRAM; 0: no GPU is used
  std::optional<int64_t> kv_budget;   // of KV cache in VRAM, without a GPU in RAM
  bool use_gpu = true;                // where there is one
  std::function<FoundDevice()> open_gpu = [] { return open_device(0); };
  std::optional<Machine> machine;  // this one's profile, for rates; assumed ones where absent
  std::optional<Plan> plan;        // to be followed; made from this machine where absent
  std::string plan_name;           // of it, for messages: its file
  // Of a plan that is made: which experts are in memory at first.
  std::optional<RecordedUse> recorded;
  Limits limits;  // its chunk_tokens is the plan's
  // Called while weights are read into memory, with bytes done and in all.
  std::function<void(int64_t, int64_t)> on_load;
};

// The tokens a session holds where `wanted` are asked for; 0: the model's context, at most 32768.
// Throws a usage Error for what the model can't.
int64_t choose_context(int64_t wanted, const ModelConfig& config);

class Sequence;
class Session;

// Tokens that follow in one session.
struct Feed {
  Session* session;
  std::span<const int32_t> tokens;
};

class Engine {
 public:
  // Throws Error when the file can't be read or isn't what it says, usage Error for options out of
  // range.
  static std::unique_ptr<Engine> open(const EngineOptions& options);
  ~Engine();

  const ModelConfig& config() const;
  const Tokenizer& tokenizer() const;
  const ChatSupport& chat() const;  // the control tokens, or why this model can't chat
  ChatProfile chat_profile() const;
  int64_t context() const;  // tokens a session holds
  const Kernels& kernels() const;
  const Workers& workers() const;
  const TensorDir& tensors() const;
  int64_t weight_bytes() const;  // of all tensors in the file
  // Whether weights are read from their file on use, as they don't fit any memory.
  bool reads_files() const;
  // Through which routed experts come that don't all fit; null where they do, or where nothing
  // does.
  const ExpertCache* cache() const;
  int64_t memory_bytes() const;  // taken for weights, slots and scratch; sessions come on top
  double guess_precision(int32_t layer) const;    // as of Forward
  const std::vector<std::string>& notes() const;  // on what the system refused
  // The GPU that layers are computed on; null where none is, and then why in words.
  const Device* gpu() const;
  const std::string& why_no_gpu() const;
  const Plan& plan() const;  // what the engine follows

  std::unique_ptr<Session> new_session();

  // One step of several sessions, chunk_tokens() tokens at most in all. The logits [rows wanted,
  // vocab], feed after feed, are valid until the next step. `on_layer` as for Forward::run: the
  // sessions are cleared where it ends the step. Throws Error where a part of the model can't be
  // read; the sessions are cleared then, and the engine goes on.
  std::span<const float> step(std::span<const Feed> feeds, LogitRows wanted,
                              ForwardObserver* observer = nullptr,
                              const std::function<bool(int32_t)>& on_layer = nullptr);
  // The same of one session, with the logits of its last token for a sampler, wherever they lie;
  // null where `on_layer` ends the step.
  LogitRow* step_to_row(const Feed& feed, const std::function<bool(int32_t)>& on_layer = nullptr);
  int32_t chunk_tokens() const;
  int32_t logit_rows() const;  // of a step, so also the most sessions it can advance for logits

  // Time, bytes and flops by stage since the last clear. Stages on a GPU have times only of steps
  // with timing, which makes them slower; those on the CPU always have.
  StageClock& clock();
  void set_timing(bool on);
  // Of the picks in layers whose experts a GPU holds in part; 1 where there are none.
  double vram_hit_rate() const;
  // Clears those, and the cache's.
  void clear_figures();

 private:
  Engine();
  void advance(std::span<const Feed> feeds, const std::function<bool(int32_t)>& on_layer,
               const std::function<void(const std::function<bool(int32_t)>&)>& run);
  struct Loaded;
  std::unique_ptr<Loaded> loaded_;
  friend class Session;
};

class Session {
 public:
  ~Session();

  // Everything fed so far.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int64_t context() const;
  int64_t bytes() const;  // KV rows and carried state, filled or not
  // Forgets everything.
  void clear();

  // Tokens done and in all; whether to go on.
  using Progress = std::function<bool(int64_t, int64_t)>;
  // Feeds `tokens` in chunks. The logits of the last token [vocab] are valid until the engine's
  // next step. `on_progress` is called often, with tokens done and in all (a part of a chunk's
  // layers counts as that part of its tokens); where it returns false the session forgets
  // everything and the logits are empty. Throws Error when the tokens don't fit the context; the
  // session is unchanged then.
  std::span<const float> feed(std::span<const int32_t> tokens,
                              const Progress& on_progress = nullptr);
  // The same for a sampler: on a GPU the logits stay there but for what is asked for. Null where
  // `on_progress` ends it.
  LogitRow* feed_to_row(std::span<const int32_t> tokens, const Progress& on_progress = nullptr);

 private:
  friend class Engine;
  using LayerProgress = std::function<bool(int32_t)>;
  Session(Engine& engine, int64_t context);
  void feed_chunks(std::span<const int32_t> tokens, const Progress& on_progress,
                   const std::function<void(const Feed&, const LayerProgress&)>& run_last);
  void check_tokens(std::span<const int32_t> tokens) const;

  Engine& engine_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<int32_t> tokens_;
};

}  // namespace hearth
