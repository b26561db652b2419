#include "offload/machine/team.h"

#include <fmt/format.h>

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

Workers make_team(int threads, const Topology& topology) {
  // A team that leaves cores free may run on any node.
  const Workers workers(threads, threads == topology.cores() ? topology.nodes() : 1);
  workers.on_each_thread([&](int thread) { topology.bind_thread(thread, threads); });
  return workers;
}

}  // namespace hearth
