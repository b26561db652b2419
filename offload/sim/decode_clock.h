// Decode on a virtual clock: a plan, followed token after token along a routing trace, layer after
// layer, with the times of the cost model.
//
// A layer begins with its dense part. Then its experts are known: those in VRAM are computed on the
// GPU, the others meanwhile on the host, and those on disk are asked for and computed in the order
// in which they arrive. The layer ends with the last of them, and on the GPU with two
// synchronisations where the host took part.
//
// An expert that moves into VRAM takes the link for as long as it is exchanged for another; until
// its copy is there the host computes it. Of copies only so many wait; others are tried again at
// the expert's next use. Experts of hash-routed layers are asked for when a token begins, guesses
// of a predictor one layer ahead. What was guessed wrong is read and thrown away. Which experts lie
// where never depends on time, so slower disks and stalls change times, not hits. All tokens are
// decoded at the plan's depth; prompts are not followed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "offload/plan/cost_model.h"
#include "offload/plan/plan.h"
#include "offload/sim/accesses.h"
#include "offload/store/cache_policy.h"

namespace hearth {

struct ClockSettings {
  double warm_up = 0.25;           // share of the tokens that are not measured, below 1
  double prefetch = 0;             // precision of the guesses for the next layer, 0: no guesses
  double stall_seconds = 0;        // that a disk stands still now and then,
  double stall_share = 1.0 / 200;  // before this share of its reads
  uint64_t seed = 1;               // of guesses and stalls
};

// How experts move between the tiers.
struct Residency {
  // Makes the policy of a tier; empty: experts stay where the plan put them.
  std::function<std::unique_ptr<CachePolicy>()> make_policy;
  // [layers * experts] decides who is in memory at first; empty: the plan's order.
  std::vector<double> popularity;
};

// Sums over the measured tokens.
struct ClockResult {
  int64_t tokens = 0;
  double seconds = 0;
  Cost cost;         // the same by what was waited for; of the disk only what it delayed
  int64_t uses = 0;  // of experts
  int64_t vram_hits = 0;
  int64_t ram_hits = 0;
  int64_t late_hits = 0;         // of vram_hits: computed on the host, their copy was not there
  double disk_bytes = 0;         // read
  double wasted_bytes = 0;       // of these: guessed wrong
  double disk_busy = 0;          // seconds with a read in flight
  double disk_profile_gb_s = 0;  // what all disks can do together
  double exchanged_bytes = 0;    // moved into VRAM
  int64_t guesses = 0;
  int64_t right_guesses = 0;

  double tok_s() const { return static_cast<double>(tokens) / seconds; }
  double disk_gb_s() const { return disk_busy > 0 ? disk_bytes / disk_busy / 1e9 : 0; }
  uint64_t hash() const;
};

// The costs must be of the machine and the model that the plan is made for; the plan must fit and
// be for one session. `accesses`: of single tokens, of the model's layers and experts. Throws Error
// where they hold no token.
ClockResult simulate_decode(const Machine& machine, const ModelShape& model, const Plan& plan,
                            const CostModel& costs, const Accesses& accesses,
                            const Residency& residency, const ClockSettings& settings);

}  // namespace hearth
