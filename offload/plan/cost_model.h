// How long a decode step and a prompt take, from bytes, arithmetic, links, disks and hit rates: a
// pure function of machine, model and placement. No constant in it is fitted to a measured run.
//
// Decode. Layers follow each other. Of a layer the dense part comes first: every matrix takes the
// longer of being read and being computed. Then its experts: those in VRAM on the GPU, the others
// at the same time on the CPU or, where that is faster, sent over the link; what lies on disk must
// arrive before. A layer on the GPU with experts elsewhere costs two synchronisations. Where
// the first layers are the CPU's, each token's streams cross the link once, before the GPU begins.
//
// Prompts. A chunk touches most experts of a layer, so each is read once: from memory, over the
// link or from disk, while the previous ones are computed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "offload/machine/machine.h"
#include "offload/plan/cpu_rates.h"
#include "offload/plan/gpu_rates.h"
#include "offload/plan/hit_curve.h"
#include "offload/plan/model_shape.h"
#include "offload/plan/placement.h"

namespace hearth {

// What a run does.
struct Workload {
  int64_t context = 0;   // tokens a session can hold
  int64_t depth = 0;     // tokens before those that are decoded
  int64_t prompt = 0;    // tokens of a prompt, from the start of the context
  int64_t answer = 0;    // tokens decoded after it
  int32_t parallel = 1;  // sessions
};

// What a part of the time is spent on.
enum class Resource { kMemory, kCores, kGpuMemory, kGpuCores, kLink, kDisk, kWaiting };
constexpr int kResources = 7;
const char* resource_name(Resource resource);

struct Cost {
  std::array<double, kResources> seconds{};  // one after another: together the time
  std::array<double, kResources> beside{};   // work at the same time, which the longer work hides
  double missed = 0;  // experts that layers on the GPU needed and VRAM did not have
  double sent = 0;    // those of them that went over the link; the CPU computed the others

  void add(Resource resource, double more) { seconds[static_cast<int>(resource)] += more; }
  void add(const Cost& more, double times);
  double total() const;
  Resource bottleneck() const;
  // That which is busy longest of the others.
  Resource runner_up() const;
  double busy(Resource resource) const {
    return seconds[static_cast<int>(resource)] + beside[static_cast<int>(resource)];
  }
  double sent_share() const { return missed > 0 ? sent / missed : 0; }
};

// Routed experts of a layer, computed on both sides of the link at the same time. In decode all of
// it is in proportion to their numbers.
struct ExpertTimes {
  Cost on_gpu;               // those in VRAM
  Cost on_host;              // the others: on the cores, sent over the link, or part of them each
  double sent = 0;           // share of the others that goes over the link
  double beside_copies = 0;  // seconds of the others, all on the cores, while copies use the link
};

// Some of a layer's experts, and what they do.
struct ExpertWork {
  double in_vram;      // of them; 0 where the layer isn't on the GPU
  double elsewhere;    // the others
  double tokens_each;  // that each is multiplied with
  bool prompt;         // of a chunk
};

// Shares of a layer's experts that a placement holds.
struct HeldShares {
  double vram = 0;        // in VRAM, of a layer on the GPU
  double gpu_layers = 0;  // in VRAM or RAM, of a layer on the GPU
  double cpu_layers = 0;  // the same of another layer
};
HeldShares held_shares(const ModelShape& model, const Placement& placement);

// Which side of the range of hit rates is assumed.
enum class Outlook { kLow, kLikely, kHigh };

class CostModel {
 public:
  // All must outlive the object. `gpu` null: none is used.
  CostModel(const Machine& machine, const ModelShape& model, const CpuRates& cpu, const Gpu* gpu,
            const HitCurve& hits);

  // One token of every session.
  Cost decode_step(const Placement& placement, const Workload& work,
                   Outlook outlook = Outlook::kLikely) const;
  // A whole prompt of one session.
  Cost prompt(const Placement& placement, const Workload& work) const;
  // Tokens a second, all sessions together.
  double decode_tok_s(const Placement& placement, const Workload& work,
                      Outlook outlook = Outlook::kLikely) const;
  double prefill_tok_s(const Placement& placement, const Workload& work) const;

  double disk_gb_s() const { return disk_gb_s_; }

  // The parts of a decode step. A layer's is all of it but its routed experts; the streams that
  // cross to the GPU are its first layer's.
  Cost layer_step(const Placement& placement, const Workload& work, int32_t layer) const;
  Cost head_step(const Placement& placement, const Workload& work) const;
  ExpertTimes expert_times(const Placement& placement, const LayerShape& layer, bool on_gpu,
                           const ExpertWork& work) const;
  // The last two only with a GPU. Of a layer on it that has experts elsewhere: what goes down, what
  // comes back.
  double sync_seconds() const { return 2 * gpu_->sync_us * 1e-6; }
  // To bring an expert into VRAM while the cores compute and another one goes back.
  double exchange_seconds(double bytes) const;

 private:
  struct Layers;  // alike, and computed in the same place
  struct Tokens;
  static Tokens one_each(const Workload& work);  // one token of every session
  std::vector<Layers> layers_of(const Placement& placement) const;
  void add_dense(const Layers& layers, const Tokens& tokens, Cost& cost) const;
  void add_attention(const Layers& layers, const Placement& placement, const Tokens& tokens,
                     Cost& cost) const;
  void add_experts(const Layers& layers, const Placement& placement, const Tokens& tokens,
                   Outlook outlook, double dense_seconds, Cost& cost) const;
  void add_others(const Placement& placement, const LayerShape& layer, bool on_gpu,
                  const ExpertWork& work, ExpertTimes& times) const;
  void add_crossing(const Placement& placement, const Tokens& tokens, Cost& cost) const;
  void add_head(const Placement& placement, int32_t rows, Cost& cost) const;
  void add_chunk(const Placement& placement, int64_t position, int64_t tokens, double times,
                 Cost& cost) const;

  const Machine& machine_;
  const ModelShape& model_;
  const CpuRates& cpu_;
  const Gpu* gpu_;
  const std::optional<GpuRates> gpu_rates_;
  const HitCurve& hits_;
  double disk_gb_s_ = 0;
};

// The rate of the reads that are most like those of experts; null where the profile has no rates.
const DiskRate* streaming_rate(const Disk& disk);
// All of a machine's disks together.
double disk_read_gb_s(const Machine& machine);
// 0 where that of one is not known.
int64_t disk_capacity_bytes(const Machine& machine);

}  // namespace hearth
