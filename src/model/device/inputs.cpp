#include "model/device/inputs.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "model/device/slab.h"

namespace hearth {
namespace {

// The same places on the host and on the device.
struct Places {
  Places(Slab& slab, int64_t n, int64_t wanted, int64_t caches_in_all, int64_t embedding_bytes)
      : rows(slab.take<GpuRow>(n)),
        tokens(slab.take<int32_t>(n)),
        embeddings(slab.take<unsigned char>(n * embedding_bytes)),
        wanted_rows(slab.take<int32_t>(wanted)),
        caches(slab.take<GpuSequenceCache>(caches_in_all)) {}
  GpuRow* rows;
  int32_t* tokens;
  unsigned char* embeddings;
  int32_t* wanted_rows;
  GpuSequenceCache* caches;
};

DeviceBatch measure(std::span<const DeviceSegment> segments, LogitRows wanted) {
  DeviceBatch batch;
  batch.sequences = std::ssize(segments);
  // A row that decodes must not depend on its neighbours, so one of them binds the whole step.
  batch.prefill = true;
  for (const DeviceSegment& segment : segments) {
    const int64_t tokens = std::ssize(segment.tokens);
    HEARTH_CHECK(tokens > 0);
    batch.n += tokens;
    batch.run_max = std::max(batch.run_max, tokens);
    const int64_t entries =
        (segment.cache->position + tokens) / static_cast<int64_t>(LayerKind::kCsa);
    batch.index_entries = std::max(batch.index_entries, entries);
    batch.prefill = batch.prefill && tokens > 1;
  }
  batch.index_entries =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(batch.index_entries)));
  if (wanted == LogitRows::kLast) batch.wanted = batch.sequences;
  if (wanted == LogitRows::kAll) batch.wanted = batch.n;
  return batch;
}

int64_t stream_bytes(const ModelConfig& config, const Matrix& embedding, const Limits& limits) {
  if (embedding.cols > 0) return 0;
  return int64_t{limits.chunk_tokens} * config.streams * config.dim * int64_t{sizeof(float)};
}

void write_rows(std::span<const DeviceSegment> segments, LogitRows wanted, const Places& host) {
  int32_t row = 0, listed = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    const std::span<const int32_t> tokens = segments[s].tokens;
    for (size_t i = 0; i < tokens.size(); ++i, ++row) {
      host.rows[row] = {segments[s].cache->position + static_cast<int64_t>(i), tokens[i],
                        static_cast<int32_t>(s)};
      host.tokens[row] = tokens[i];
      const bool is_last = i + 1 == tokens.size();
      if (wanted == LogitRows::kAll || (wanted == LogitRows::kLast && is_last)) {
        host.wanted_rows[listed++] = row;
      }
    }
  }
}

}  // namespace

StepInputs::StepInputs(Device& device, const ModelConfig& config, const Matrix& embedding,
                       const Limits& limits)
    : device_(device),
      layers_(config.layers),
      embedding_(embedding),
      streams_width_(int64_t{config.streams} * config.dim),
      rows_max_(std::min(limits.chunk_tokens, limits.logit_rows)),
      staging_(
          device.allocate_pinned(static_cast<size_t>(step_input_bytes(config, embedding, limits)))),
      streams_(
          device.allocate_pinned(static_cast<size_t>(stream_bytes(config, embedding, limits)))),
      memory_(allocate_for(device, "a step's rows", step_input_bytes(config, embedding, limits))),
      copied_(device.create_event()) {}

int64_t step_input_bytes(const ModelConfig& config, const Matrix& embedding, const Limits& limits) {
  const int64_t n = limits.chunk_tokens, rows = std::min(limits.chunk_tokens, limits.logit_rows);
  Slab counting;
  Places(counting, n, rows, rows * config.layers, row_bytes(embedding.type, embedding.cols));
  return counting.bytes();
}

int64_t step_input_pinned_bytes(const ModelConfig& config, const Matrix& embedding,
                                const Limits& limits) {
  return step_input_bytes(config, embedding, limits) + stream_bytes(config, embedding, limits);
}

const DeviceBatch& StepInputs::upload(std::span<const DeviceSegment> segments, LogitRows wanted,
                                      const Stream& stream) {
  batch_ = measure(segments, wanted);
  HEARTH_CHECK(batch_.wanted <= rows_max_ && batch_.sequences <= rows_max_);
  Slab host_slab(staging_.data()), device_slab(memory_.data());
  const int64_t caches_in_all = layers_ * batch_.sequences;
  const int64_t embedding_bytes = row_bytes(embedding_.type, embedding_.cols);
  const Places host(host_slab, batch_.n, batch_.wanted, caches_in_all, embedding_bytes);
  const Places device(device_slab, batch_.n, batch_.wanted, caches_in_all, embedding_bytes);
  HEARTH_CHECK(host_slab.bytes() <= static_cast<int64_t>(staging_.bytes()));

  device_.synchronize(copied_);  // the step before may still be reading
  write_rows(segments, wanted, host);
  for (int64_t i = 0; i < batch_.n && embedding_bytes > 0; ++i) {
    std::memcpy(host.embeddings + i * embedding_bytes,
                embedding_.data + host.tokens[i] * embedding_bytes,
                static_cast<size_t>(embedding_bytes));
  }
  batch_.kv_type = segments.front().cache->type();
  for (int64_t s = 0; s < batch_.sequences; ++s) {
    const DeviceCache& cache = *segments[s].cache;
    HEARTH_CHECK(cache.type() == batch_.kv_type);
    for (int32_t layer = 0; layer < layers_; ++layer) {
      host.caches[layer * batch_.sequences + s] = cache.layer(layer);
    }
  }
  device_.copy_to_device(memory_.data(), staging_.data(), static_cast<size_t>(host_slab.bytes()),
                         stream);
  device_.record(copied_, stream);

  batch_.rows = device.rows;
  batch_.tokens = device.tokens;
  const int64_t embedded = embedding_.cols > 0 ? batch_.n : 0;
  batch_.embeddings = {embedding_.type, embedded, embedding_.cols, device.embeddings};
  batch_.wanted_rows = device.wanted_rows;
  batch_.caches = device.caches;
  batch_.host_rows = {host.rows, static_cast<size_t>(batch_.n)};
  return batch_;
}

// The step before has read the pinned rows: upload waited for that.
void StepInputs::bring_streams(const StreamRows& streams, float* to, const Stream& stream) {
  for (int64_t row = 0; row < batch_.n; ++row) {
    std::copy_n(streams.values + row * streams.stride, streams_width_,
                streams_.as<float>() + row * streams_width_);
  }
  const int64_t floats = batch_.n * streams_width_;
  device_.copy_to_device(to, streams_.data(), static_cast<size_t>(floats) * sizeof(float), stream);
  device_.record(copied_, stream);
}

}  // namespace hearth
