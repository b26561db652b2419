#include "cli/routing_work.h"

#include <fmt/format.h>

#include <tuple>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "cli/common.h"
#include "format/gguf.h"
#include "model/config.h"
#include "model/synth.h"
#include "offload/plan/recorded_use.h"
#include "offload/sim/routing_generator.h"

namespace hearth::cli {
namespace {

RoutingModel routing_of(const std::string& model, std::string& name) {
  if (model == "flash" || model == "pro") {
    const SynthShape shape = model == "flash" ? flash_shape() : pro_shape();
    name = shape.name;
    return routing_like_flash(shape.layers, shape.experts, shape.experts_used);
  }
  const std::filesystem::path path = known_model_path(model);
  const ModelConfig config = read_config(open_gguf(path), path.string());
  name = path.filename().string();
  RoutingModel routing = routing_like_flash(config.layers, config.experts, config.experts_used);
  routing.hash_layers = config.hash_layers;
  return routing;
}

// Throws Error where the trace is of another model than was named, or asked for by a plan.
void check_model(const RoutingSource& source, const RoutingTrace& trace) {
  if (source.model.empty() && !source.for_plan) return;
  std::string name;
  const RoutingModel model = routing_of(source.model, name);
  check_routing_shape({trace.layers, trace.experts, trace.used}, source.trace,
                      {model.layers, model.experts, model.used}, name);
}

std::string hash_of(const RoutingTrace& trace) {
  ResultHash hash;
  hash.add(std::span<const uint16_t>(trace.picks));
  return format_hash(hash.value());
}

RoutingWork recorded(const RoutingSource& source) {
  const std::string name = std::filesystem::path(source.trace).filename().string();
  RoutingTrace trace = read_trace(source.trace);
  const int64_t known = source.for_plan ? trace.tokens() / 2 : 0;
  if (trace.tokens() == 0 || (source.for_plan && known == 0)) {
    throw Error(fmt::format("holds {}", trace.tokens() == 0 ? "no tokens" : "a single token"),
                source.trace, "Record a longer text");
  }
  check_model(source, trace);
  RoutingWork work = {name, hash_of(trace), {}, {}, {}};
  if (source.for_plan) {
    std::tie(work.known, work.trace) = split_trace(trace, known);
  } else {
    work.trace = std::move(trace);
  }
  return work;
}

RoutingWork drawn(const RoutingSource& source) {
  RoutingWork work;
  RoutingModel model = routing_of(source.model, work.name);
  if (source.random) model = random_routing(model.layers, model.experts, model.used);
  RoutingGenerator generator(model, source.seed);
  work.name += fmt::format(", drawn with seed {}", source.seed);
  work.trace = generator.generate(std::span(&source.tokens, 1));
  work.hash = hash_of(work.trace);
  work.popularity = generator.popularity();
  return work;
}

}  // namespace

RoutingWork routing_work(const RoutingSource& source) {
  return source.trace.empty() ? drawn(source) : recorded(source);
}

std::vector<NamedPolicy> policies_for(const RoutingWork& work) {
  std::vector<NamedPolicy> policies = {kStatic, kLfu, kLru, kHearth, kOptimal};
  if (!work.popularity.empty()) policies.insert(policies.begin(), kPopular);
  if (work.known.tokens() > 0) policies.insert(policies.begin(), kPlanned);
  return policies;
}

std::unique_ptr<CachePolicy> make_policy(const NamedPolicy& policy, const Accesses& accesses) {
  HEARTH_CHECK(!policy.fixed);
  const CacheShape shape = {accesses.layers, accesses.experts};
  if (policy == kLfu) return make_lfu_policy(shape);
  if (policy == kLru) return make_lru_policy(shape);
  if (policy == kHearth) return make_reuse_policy(shape);
  return make_optimal_policy(shape, accesses.keys);
}

}  // namespace hearth::cli
