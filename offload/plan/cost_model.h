// How long a decode step and a prompt take, from bytes, arithmetic, links, disks and hit rates: a
// pure function of machine, model and placement. No constant in it is fitted to a measured run.
//
// Decode. Layers follow each other. Of a layer the dense part comes first: every matrix takes the
// longer of being read and being computed. Then its experts: those in VRAM on the GPU, the others
// at the same time on the CPU or, where that is faster, sent over the link; what lies on disk must
// arrive before. A layer on the GPU with experts elsewhere costs two synchronisations.
//
// Prompts. A chunk touches most experts of a layer, so each is read once: from memory, over the
// link or from disk, while the previous ones are computed.
#pragma once

#include <array>
#include <cstdint>

#include "offload/machine/machine.h"
#include "offload/plan/cpu_rates.h"
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
  std::array<double, kResources> seconds{};

  void add(Resource resource, double more) { seconds[static_cast<int>(resource)] += more; }
  double total() const;
  Resource bottleneck() const;
};

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

 private:
  struct Layers;  // alike, and computed in the same place
  struct Tokens;
  std::vector<Layers> layers_of(const Placement& placement) const;
  void add_dense(const Layers& layers, const Placement& placement, const Tokens& tokens,
                 Cost& cost) const;
  void add_attention(const Layers& layers, const Placement& placement, const Tokens& tokens,
                     Cost& cost) const;
  void add_experts(const Layers& layers, const Placement& placement, const Tokens& tokens,
                   Outlook outlook, Cost& cost) const;
  void add_head(const Placement& placement, int32_t rows, Cost& cost) const;
  void add_chunk(const Placement& placement, int64_t position, int64_t tokens, double times,
                 Cost& cost) const;
  void add_gpu(double bytes, double flops, double times, Cost& cost) const;

  const Machine& machine_;
  const ModelShape& model_;
  const CpuRates& cpu_;
  const Gpu* gpu_;
  const HitCurve& hits_;
  double disk_gb_s_ = 0;
};

// The best a machine's disks do together with reads of whole experts.
double disk_read_gb_s(const Machine& machine, int64_t expert_bytes);

}  // namespace hearth
