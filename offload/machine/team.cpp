#include "offload/machine/team.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"

namespace hearth {

int choose_threads(int wanted) {
  constexpr int kThreadsMax = 1024;
  if (wanted == 0) return Topology::of_this_machine().cores();
  if (wanted < 1 || wanted > kThreadsMax) {
    throw usage_error(fmt::format("{} threads are not possible", wanted), "--threads",
                      fmt::format("Choose 1 to {}, or 0 for one a physical core", kThreadsMax));
  }
  return wanted;
}

Workers make_team(const NodeShares& shares, const Topology& topology) {
  const Workers workers(shares);
  HEARTH_CHECK(workers.nodes() == 1 || workers.nodes() == topology.nodes());
  const bool is_whole = workers.threads() == topology.cores();
  workers.on_each_thread([&](int thread) {
    if (is_whole) {
      topology.bind_to_core(thread);
    } else if (workers.nodes() > 1) {
      topology.bind_to_node(workers.node_of(thread));
    }
  });
  return workers;
}

Workers make_team(int threads, const Topology& topology) {
  const bool is_whole = threads == topology.cores();
  const int nodes = is_whole ? topology.nodes() : 1;
  return make_team(NodeShares::even(threads, nodes), topology);
}

}  // namespace hearth
