#include "gpu_kernels/bench/random_data.h"
#include "gpu_kernels/bench/tables.h"

namespace hearth::bench {
namespace {

constexpr float kEps = 1e-6f;

// Measures kernels of one token, whose data stays in the caches of the GPU, as it does in a step.
class Steps {
 public:
  Steps(Bench& bench, Table& table)
      : bench_(bench), memory_(bench), s(bench.sizes()), table_(table) {}

  void hyper_connections();
  void norms();
  void rotations();
  void rounding();
  void routing();
  void caches();
  void tokens();

 private:
  template <typename Params>
  void add(const char* name, void (*kernel)(const Params&, GpuStream), const Params& params) {
    const double us = bench_.us([&](int64_t) { kernel(params, bench_.handle()); });
    memory_.check_outputs(name);
    table_.rows.push_back(
        {name, "", 1, {{"us", us}, {"launch_floor_us", bench_.launch_floor_us()}}});
  }
  GpuRoundedRows rounded(int64_t k) {
    return {memory_.allocate<int8_t>(k), memory_.output<float>(k / 32),
            memory_.output<float>(k / 16)};
  }
  const GpuRow* row_at(int64_t position) {
    return memory_.upload(std::vector<GpuRow>{{position, 0, 0}});
  }
  void append_entries(const char* name, int32_t ratio, int32_t width, bool of_index);

  Bench& bench_;
  Memory memory_;
  const Sizes& s;
  Table& table_;
};

void Steps::hyper_connections() {
  const int64_t mixes = (2 + s.streams) * s.streams;
  GpuEnterHyperParams enter = {};
  enter.streams = memory_.floats(s.streams * s.dim);
  enter.mixes = memory_.floats(mixes);
  enter.scale = memory_.floats(3);
  enter.base = memory_.floats(mixes);
  enter.gain = memory_.floats(s.dim);
  enter.n = 1;
  enter.stream_count = s.streams;
  enter.dim = s.dim;
  enter.sinkhorn_iterations = s.sinkhorn_iterations;
  enter.hyper_eps = enter.rms_eps = kEps;
  enter.coefficients = memory_.output<float>(s.streams * (s.streams + 1));
  enter.x = memory_.output<float>(s.dim);
  enter.xq = rounded(s.dim);
  add("enter_hyper", bench_.kernels().enter_hyper, enter);

  const GpuLeaveHyperParams leave = {enter.streams,
                                     memory_.floats(s.dim),
                                     enter.coefficients,
                                     1,
                                     s.streams,
                                     s.dim,
                                     memory_.output<float>(s.streams * s.dim)};
  add("leave_hyper", bench_.kernels().leave_hyper, leave);
}

void Steps::norms() {
  const GpuRmsNormParams one = {memory_.floats(s.q_rank),
                                memory_.floats(s.q_rank),
                                kEps,
                                1,
                                s.q_rank,
                                memory_.output<float>(s.q_rank),
                                {}};
  add("rms_norm of q_low", bench_.kernels().rms_norm, one);
  const GpuRmsNormParams heads = {
      memory_.floats(s.heads_width()),        nullptr, kEps, s.heads, s.head_dim,
      memory_.output<float>(s.heads_width()), {}};
  add("rms_norm of all heads", bench_.kernels().rms_norm, heads);
}

void Steps::rotations() {
  const int32_t pairs = s.rope_dim / 2;
  const std::vector<double> frequencies(static_cast<size_t>(pairs), 0.1);
  const GpuRopeAnglesParams angles = {
      row_at(s.context - 1),        memory_.upload(frequencies), 1, pairs, 1,
      memory_.output<float>(pairs), memory_.output<float>(pairs)};
  add("rope_angles", bench_.kernels().rope_angles, angles);
  const GpuRopeParams heads = {memory_.floats(s.heads_width()),
                               1,
                               s.heads,
                               s.head_dim,
                               s.rope_dim,
                               angles.cosines,
                               angles.sines,
                               false};
  add("rope of all heads", bench_.kernels().rope, heads);
}

void Steps::rounding() {
  add("quantize a token", bench_.kernels().quantize,
      GpuQuantizeParams{memory_.floats(s.dim), 1, s.dim, rounded(s.dim)});
  const int64_t outputs = s.output_groups * s.output_rank;
  add("quantize grouped outputs", bench_.kernels().quantize,
      GpuQuantizeParams{memory_.floats(outputs), 1, outputs, rounded(outputs)});
  add("quantize hidden of experts", bench_.kernels().quantize,
      GpuQuantizeParams{memory_.floats(s.experts_used * s.expert_dim), s.experts_used, s.expert_dim,
                        rounded(s.experts_used * s.expert_dim)});
}

void Steps::routing() {
  GpuRouteParams route = {};
  route.logits = memory_.floats(s.experts);
  route.bias = memory_.floats(s.experts);
  route.n = 1;
  route.experts = s.experts;
  route.used = s.experts_used;
  route.norm = true;
  route.scale = 1.5f;
  route.picks = memory_.output<int32_t>(s.experts_used);
  route.weights = memory_.output<float>(s.experts_used + 1);
  add("route", bench_.kernels().route, route);

  static const unsigned char somewhere = 0;  // only asked whether it is null
  const std::vector<const unsigned char*> places(static_cast<size_t>(s.experts), &somewhere);
  const GpuSumExpertsParams sum = {memory_.floats((s.experts_used + 1) * s.dim),
                                   route.weights,
                                   route.picks,
                                   memory_.upload(places),
                                   nullptr,
                                   1,
                                   s.experts_used,
                                   s.dim,
                                   memory_.output<float>(s.dim)};
  add("sum_experts", bench_.kernels().sum_experts, sum);
}

// With the token that completes an entry.
void Steps::append_entries(const char* name, int32_t ratio, int32_t width, bool of_index) {
  const bool overlapping = ratio == s.csa_ratio;
  const int64_t lanes = overlapping ? 2 * width : width;
  const int64_t entries = s.context / ratio;
  const GpuCompressedCache own = {memory_.weights(TensorType::kBF16, entries * width * 2),
                                  memory_.floats((overlapping ? 2 : 1) * ratio * 2 * lanes)};
  GpuSequenceCache cache = {nullptr, 1, {}, {}};
  (of_index ? cache.index : cache.entries) = own;
  GpuAppendEntriesParams p = {};
  p.inputs = memory_.floats(2 * lanes);
  p.rows = row_at(entries * ratio - 1);
  p.caches = memory_.upload(std::vector<GpuSequenceCache>{cache});
  p.kv_type = KvType::kBF16;
  p.of_index = of_index;
  p.n = 1;
  p.run_max = 1;
  p.ratio = ratio;
  p.width = width;
  p.overlapping = overlapping;
  p.ape = memory_.floats(ratio * lanes);
  p.gain = memory_.floats(width);
  p.eps = kEps;
  p.rope_dim = s.rope_dim;
  p.cosines = memory_.floats(s.rope_dim / 2);
  p.sines = memory_.floats(s.rope_dim / 2);
  add(name, bench_.kernels().append_entries, p);
}

void Steps::caches() {
  append_entries("append_entries, CSA", s.csa_ratio, s.head_dim, false);
  append_entries("append_entries, index", s.csa_ratio, s.index_dim, true);
  append_entries("append_entries, HCA", s.hca_ratio, s.head_dim, false);
}

void Steps::tokens() {
  GpuEmbedParams embed = {};
  embed.table = {TensorType::kQ8_0, s.vocab, s.dim,
                 memory_.weights(TensorType::kQ8_0, s.vocab * row_bytes(TensorType::kQ8_0, s.dim))};
  embed.tokens = memory_.upload(std::vector<int32_t>{static_cast<int32_t>(s.vocab / 2)});
  embed.n = 1;
  embed.streams = s.streams;
  embed.out = memory_.output<float>(s.streams * s.dim);
  add("embed", bench_.kernels().embed, embed);

  GpuArgmaxParams argmax = {};
  argmax.logits = memory_.floats(s.vocab);
  argmax.n = 1;
  argmax.vocab = s.vocab;
  argmax.tokens = memory_.output<int32_t>(1);
  add("argmax of the vocabulary", bench_.kernels().argmax, argmax);
}

}  // namespace

Table steps(Bench& bench) {
  Table table{"steps", {}, {}};
  Steps all(bench, table);
  all.hyper_connections();
  all.norms();
  all.rotations();
  all.rounding();
  all.routing();
  all.caches();
  all.tokens();
  return table;
}

}  // namespace hearth::bench
