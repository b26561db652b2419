#include "model/device/needs.h"

#include "model/device/cache.h"
#include "model/device/expert_stream.h"
#include "model/device/forward.h"
#include "model/device/weights.h"
#include "model/host_experts.h"

namespace hearth {
namespace {

Limits with_chunk(Limits limits, int32_t chunk_tokens) {
  limits.chunk_tokens = chunk_tokens;
  return limits;
}

// More than the tensors' own bytes: of weights that lie on the device.
int64_t beyond_tensors(const ModelShape& shape, const DeviceModelParts& parts) {
  int64_t bytes = device_weight_bytes(parts.config, parts.weights) - shape.head_bytes;
  for (const LayerShape& layer : shape.layers) bytes -= layer.dense_bytes;
  const std::vector<LayerExperts> layers = layer_experts(parts.weights);
  const std::vector<int32_t> all(layers.size(), parts.config.experts);
  return bytes + vram_tier_bytes(layers, parts.config.experts, all) - shape.routed_bytes();
}

int64_t total(const std::vector<KvBytes>& layers) {
  int64_t bytes = 0;
  for (const KvBytes& layer : layers) bytes += layer.total();
  return bytes;
}

// What a cache takes on the device beyond the bytes that `layers` name.
int64_t beyond_rows(const DeviceCacheShape& shape, size_t page_bytes,
                    const std::vector<KvBytes>& layers) {
  const int64_t rows = total(layers) - DeviceCacheLayout(shape).pinned_bytes;
  return device_cache_bytes(shape, page_bytes) - rows;
}

}  // namespace

GpuNeeds gpu_needs(const ModelShape& shape, const DeviceModelParts& parts) {
  const int64_t weights = beyond_tensors(shape, parts);
  const DeviceTraits traits = traits_of(parts.weights);
  GpuNeeds needs;
  needs.vram_bytes = [=, kv_bytes = shape.kv_bytes, config = parts.config, kv = parts.kv,
                      limits = parts.limits, kernels = &parts.gpu_kernels, page = parts.page_bytes](
                         int64_t context, int32_t chunk, int32_t sessions, bool entries_in_ram) {
    const Limits with = with_chunk(limits, chunk);
    const EntriesIn entries = entries_in_ram ? EntriesIn::kHost : EntriesIn::kDevice;
    const int64_t cache =
        beyond_rows({config, kv, context, with, entries}, page, kv_bytes(context, chunk));
    return weights + sessions * cache +
           device_forward_bytes(config, *kernels, traits, context, with);
  };
  needs.sent_bytes =
      expert_stream_bytes(layer_experts(parts.weights), parts.config.experts, parts.limits);
  needs.ram_bytes = [=, config = parts.config, limits = parts.limits, kernels = &parts.kernels](
                        int64_t, int32_t chunk) {
    const Limits with = with_chunk(limits, chunk);
    return host_expert_bytes(config, *kernels, chunk) +
           device_forward_pinned_bytes(config, traits, with);
  };
  return needs;
}

}  // namespace hearth
