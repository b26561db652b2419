#include "cli/routing_work.h"

#include <fmt/format.h>

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
  const std::filesystem::path path = model_path(model);
  const ModelConfig config = read_config(open_gguf(path), path.string());
  name = path.filename().string();
  RoutingModel routing = routing_like_flash(config.layers, config.experts, config.experts_used);
  routing.hash_layers = config.hash_layers;
  return routing;
}

RoutingWork recorded(const RoutingSource& source) {
  const std::string name = std::filesystem::path(source.trace).filename().string();
  RoutingWork work = {name, read_trace(source.trace), {}};
  if (work.trace.tokens() == 0)
    throw Error("holds no tokens", source.trace, "Record a longer text");
  if (source.model.empty() && !source.model_must_match) return work;
  std::string model_name;
  const RoutingModel model = routing_of(source.model, model_name);
  const RoutingTrace& trace = work.trace;
  check_routing_shape({trace.layers, trace.experts, trace.used}, source.trace,
                      {model.layers, model.experts, model.used}, model_name);
  return work;
}

RoutingWork drawn(const RoutingSource& source) {
  RoutingWork work;
  RoutingModel model = routing_of(source.model, work.name);
  if (source.random) model = random_routing(model.layers, model.experts, model.used);
  RoutingGenerator generator(model, source.seed);
  work.name += fmt::format(", drawn with seed {}", source.seed);
  work.trace = generator.generate(std::span(&source.tokens, 1));
  work.popularity = generator.popularity();
  return work;
}

}  // namespace

RoutingWork routing_work(const RoutingSource& source) {
  return source.trace.empty() ? drawn(source) : recorded(source);
}

std::string trace_hash(const RoutingTrace& trace) {
  ResultHash hash;
  hash.add(std::span<const uint16_t>(trace.picks));
  return format_hash(hash.value());
}

std::vector<NamedPolicy> policies_for(const RoutingWork& work) {
  std::vector<NamedPolicy> policies = {kStatic, kLfu, kLru, kHearth, kOptimal};
  if (!work.popularity.empty()) policies.insert(policies.begin(), kPopular);
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
