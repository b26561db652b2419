// What `simulate` follows, a recorded or a drawn routing trace, and the cache policies it compares.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "offload/sim/accesses.h"
#include "offload/sim/routing_trace.h"
#include "offload/store/cache_policy.h"

namespace hearth::cli {

// What is simulated, and in words where it comes from.
struct RoutingWork {
  std::string name;
  std::string hash;    // of all picks, recorded or drawn
  RoutingTrace known;  // of a recording what a plan goes by, and is not simulated
  RoutingTrace trace;
  std::vector<double> popularity;  // over all text, where it is known
};

struct RoutingSource {
  std::string model;  // flash, pro or a file; empty: the demo model
  std::string trace;  // a file; empty: one is drawn
  // With a plan: a recorded trace must be of the model, also where none was named, and the plan
  // goes by its first half, so that it hasn't seen what is simulated.
  bool for_plan = false;
  bool random = false;  // drawn without any habits: all experts alike
  int64_t tokens = 0;   // to draw
  uint64_t seed = 1;
};
// Throws Error.
RoutingWork routing_work(const RoutingSource& source);

struct NamedPolicy {
  std::string_view name;
  const char* explanation;
  bool fixed;  // a list that never changes, else a cache
  bool operator==(const NamedPolicy& other) const { return name == other.name; }
};
constexpr NamedPolicy kPopular = {"popular", "a fixed list, the most used over all text", true};
constexpr NamedPolicy kPlanned = {"planned", "a fixed list, what the plan begins with", true};
constexpr NamedPolicy kStatic = {"static", "a fixed list, the most used of this very text", true};
constexpr NamedPolicy kLfu = {"lfu", "gives up the least often used; old uses fade", false};
constexpr NamedPolicy kLru = {"lru", "gives up the least recently used", false};
constexpr NamedPolicy kHearth = {"hearth", "gives up the one expected back last", false};
constexpr NamedPolicy kOptimal = {"optimal", "gives up the one really back last (Belady)", false};

// Those that can be judged on this work.
std::vector<NamedPolicy> policies_for(const RoutingWork& work);
// Of one that is not fixed, for a run over `accesses`, which must outlive it.
std::unique_ptr<CachePolicy> make_policy(const NamedPolicy& policy, const Accesses& accesses);

}  // namespace hearth::cli
