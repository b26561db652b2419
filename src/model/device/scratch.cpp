#include "model/device/scratch.h"

#include <algorithm>

#include "base/tensor_type.h"
#include "model/device/logit_row.h"

namespace hearth {
namespace {

constexpr int64_t kBlock = 32;        // values that are rounded together
constexpr int64_t kGroupMax = 65535;  // rows of one call of index_scores

// No block format reads rows that are not whole blocks.
DeviceRows take_rows(Slab& slab, int64_t n, int64_t width, bool is_ever_rounded = true,
                     int64_t floats_behind = 0) {
  DeviceRows rows{};
  rows.width = width;
  rows.values = slab.take<float>(n * width + floats_behind);
  if (!is_ever_rounded || width % kBlock != 0) return rows;
  rows.rounded = {slab.take<int8_t>(n * width), slab.take<float>(n * width / kBlock),
                  slab.take<float>(n * width / kBlock * 2)};
  return rows;
}

// Rows that large matrices read in prefills: as bfloat16 too, unless no tensor cores take them.
DeviceRows take_prefill_rows(Slab& slab, int64_t n, int64_t width, int64_t floats_behind = 0) {
  DeviceRows rows = take_rows(slab, n, width, true, floats_behind);
  if (width % kBlock == 0) rows.bfloat16s = slab.take<uint16_t>(n * width);
  return rows;
}

// Hidden values of experts are float32 or bfloat16, never both.
DeviceRows take_hidden_rows(Slab& slab, int64_t n, int64_t width) {
  DeviceRows rows = take_rows(slab, n, width);
  rows.bfloat16s = reinterpret_cast<uint16_t*>(rows.values);
  return rows;
}

void take_attention(Slab& slab, const ModelConfig& config, const GpuKernels& kernels,
                    const DeviceSizes& sizes, DeviceScratch& act) {
  const int64_t n = sizes.limits.chunk_tokens;
  const int64_t heads_width = static_cast<int64_t>(config.heads) * config.head_dim;
  for (DeviceAngles* angles :
       {&act.plain_angles, &act.compressed_angles, &act.csa_angles, &act.hca_angles}) {
    angles->cosines = slab.take<float>(n * (config.rope_dim / 2));
    angles->sines = slab.take<float>(n * (config.rope_dim / 2));
  }
  act.q_low = take_prefill_rows(slab, n, config.q_rank);
  // There are no queries when sub-layers are entered.
  const int64_t mix_parts = (config.streams * config.dim + kGpuMixColumns - 1) / kGpuMixColumns;
  act.q = slab.take<float>(n * std::max(heads_width, mix_parts * (config.mixes() + 1)));
  act.mix_parts = act.q;
  act.kv = slab.take<float>(n * config.head_dim);
  act.entry_inputs = slab.take<float>(n * 2 * 2 * config.head_dim);
  act.index_inputs = slab.take<float>(n * 2 * 2 * config.index_dim);
  act.index_q = slab.take<float>(n * config.index_heads * config.index_dim);
  act.index_weights = slab.take<float>(n * config.index_heads);
  act.entries_max =
      config.index_heads > 0 ? sizes.context / static_cast<int64_t>(LayerKind::kCsa) : 0;
  act.index_group =
      std::clamp<int64_t>(sizes.limits.device_index_scores / std::max<int64_t>(act.entries_max, 1),
                          1, std::min(n, kGroupMax));
  act.index_scores = slab.take<float>(act.index_group * act.entries_max);
  act.selected = slab.take<int32_t>(n * config.index_top_k);
  act.selected_count = slab.take<int32_t>(n);
  act.attention =
      slab.take<float>(kernels.attention_scratch_floats(n, config.heads, config.head_dim));
  act.attention_out = take_rows(slab, n * config.output_groups, heads_width / config.output_groups);
  // Outputs are there when nobody reads the queries any more, whose memory is twice as large.
  if (act.attention_out.width % kBlock == 0) {
    act.attention_out.bfloat16s = reinterpret_cast<uint16_t*>(act.q);
  }
  act.group_rows = slab.take<int32_t>(n * config.output_groups);
  act.grouped_out =
      take_prefill_rows(slab, n, static_cast<int64_t>(config.output_groups) * config.output_rank);
}

void take_experts(Slab& slab, const ModelConfig& config, int64_t n, DeviceScratch& act) {
  const int64_t picks = n * config.experts_used;
  const int64_t tiles = std::min(picks, config.experts + picks / kGpuTilePicks);
  act.router_logits = slab.take<float>(n * config.experts);
  act.tiles = {slab.take<int32_t>(1), slab.take<int32_t>(tiles), slab.take<int32_t>(tiles + 1),
               slab.take<int32_t>(picks)};
  act.expert_hidden = take_hidden_rows(slab, picks, config.expert_dim);
  act.shared_hidden = take_hidden_rows(slab, n, config.shared_dim);
  act.expert_out = slab.take<float>((picks + n) * config.dim);
  act.elsewhere = slab.take<float>(n * config.dim);
}

}  // namespace

int64_t DeviceSizes::logit_rows() const { return std::min(limits.chunk_tokens, limits.logit_rows); }

DeviceScratch take_scratch(Slab& slab, const ModelConfig& config, const GpuKernels& kernels,
                           const DeviceSizes& sizes) {
  const int64_t n = sizes.limits.chunk_tokens;
  DeviceScratch act{};
  act.chunk = n;
  act.streams = take_rows(slab, n, int64_t{config.streams} * config.dim, sizes.rounds_streams);
  act.mixes = slab.take<float>(n * config.mixes());
  act.coefficients = slab.take<float>(n * config.streams * (config.streams + 1));
  act.x = take_prefill_rows(slab, n, config.dim, n * (2 * config.experts_used + 1));
  act.output = slab.take<float>(n * config.dim);
  take_attention(slab, config, kernels, sizes, act);
  take_experts(slab, config, n, act);
  act.head_x = take_rows(slab, sizes.logit_rows(), config.dim);
  act.logits = slab.take<float>(sizes.logit_rows() * config.vocab);
  act.row_summary = slab.take<float>(summary_floats(config.vocab));
  return act;
}

}  // namespace hearth
