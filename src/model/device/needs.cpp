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

// More than the tensors' own bytes: of weights that lie on the device where it has the layers from
// `first_layer` on.
int64_t beyond_tensors(const ModelShape& shape, const DeviceModelParts& parts,
                       int32_t first_layer) {
  const int32_t experts = parts.config.experts;
  const std::vector<LayerExperts> layers = layer_experts(parts.weights);
  std::vector<int32_t> slots(layers.size(), 0);
  int64_t tensors = shape.head_bytes;
  for (int32_t i = first_layer; i < parts.config.layers; ++i) {
    slots[i] = experts;
    tensors += shape.layers[i].dense_bytes + experts * shape.layers[i].expert_bytes;
  }
  return device_weight_bytes(parts.config, parts.weights, first_layer) +
         vram_tier_bytes(layers, experts, slots) - tensors;
}

int64_t total_from(const std::vector<KvBytes>& layers, int32_t first_layer) {
  int64_t bytes = 0;
  for (size_t i = first_layer; i < layers.size(); ++i) bytes += layers[i].total();
  return bytes;
}

// What a cache takes on the device beyond the bytes that `layers` name.
int64_t beyond_rows(const DeviceCacheShape& shape, size_t page_bytes,
                    const std::vector<KvBytes>& layers) {
  const int64_t rows =
      total_from(layers, shape.first_layer) - DeviceCacheLayout(shape).pinned_bytes;
  return device_cache_bytes(shape, page_bytes) - rows;
}

// With so many of the last layers on the device.
struct Share {
  int32_t first_layer;
  int64_t beyond_tensors;
  DeviceTraits traits;
};

std::vector<Share> all_shares(const ModelShape& shape, const DeviceModelParts& parts) {
  std::vector<Share> shares;
  for (int32_t first = parts.config.layers; first >= 0; --first) {
    shares.push_back({first, beyond_tensors(shape, parts, first), traits_of(parts.weights, first)});
  }
  return shares;
}

}  // namespace

GpuNeeds gpu_needs(const ModelShape& shape, const DeviceModelParts& parts) {
  const std::vector<Share> shares = all_shares(shape, parts);
  GpuNeeds needs;
  needs.vram_bytes = [=, kv_bytes = shape.kv_bytes, config = parts.config, kv = parts.kv,
                      limits = parts.limits, kernels = &parts.gpu_kernels, page = parts.page_bytes](
                         int64_t context, int32_t chunk, int32_t sessions, bool entries_in_ram) {
    const Limits with = with_chunk(limits, chunk);
    const EntriesIn entries = entries_in_ram ? EntriesIn::kHost : EntriesIn::kDevice;
    const std::vector<KvBytes> rows = kv_bytes(context, chunk);
    std::vector<int64_t> bytes;
    for (const Share& share : shares) {
      const int64_t cache =
          beyond_rows({config, kv, context, with, entries, share.first_layer}, page, rows);
      bytes.push_back(share.beyond_tensors + sessions * cache +
                      device_forward_bytes(config, *kernels, share.traits, context, with));
    }
    return bytes;
  };
  needs.sent_bytes =
      expert_stream_bytes(layer_experts(parts.weights), parts.config.experts, parts.limits);
  needs.ram_bytes = [=, config = parts.config, limits = parts.limits, kernels = &parts.kernels](
                        int64_t, int32_t chunk) {
    const Limits with = with_chunk(limits, chunk);
    const int64_t experts = host_expert_bytes(config, *kernels, chunk);
    std::vector<int64_t> bytes;
    for (const Share& share : shares) {
      bytes.push_back(experts + device_forward_pinned_bytes(config, share.traits, with));
    }
    return bytes;
  };
  return needs;
}

}  // namespace hearth
