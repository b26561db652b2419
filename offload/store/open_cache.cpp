#include "offload/store/open_cache.h"

#include "offload/machine/memory.h"

namespace hearth {
namespace {

constexpr int64_t kPartsOfExpert = 3;  // requests it takes

}  // namespace

OpenCache open_expert_cache(const TensorDir& dir, std::vector<LayerExperts> layers,
                            const CacheOptions& options, const Topology& topology) {
  const CacheShape shape{static_cast<int32_t>(layers.size()), options.experts};
  ExpertSlots slots(std::move(layers), options.experts, options.slots, topology, options.shares);
  const bool is_locked = slots.lock();
  std::vector<ReaderFile> files;
  for (const ModelFile& file : dir.files) files.push_back({file.path.string()});
  ReaderOptions reading;
  reading.requests_max = static_cast<int32_t>(options.read_ahead * kPartsOfExpert);
  reading.memory = {slots.memory()};
  OpenReader reader = open_reader(files, reading);
  OpenCache result;
  result.notes = std::move(reader.notes);
  if (!is_locked && has_swap()) {
    result.notes.push_back(
        "memory for experts can't be locked (see ulimit -l): other programs may push it out");
  }
  result.cache = std::make_unique<ExpertCache>(shape, std::move(slots), std::move(reader.reader),
                                               make_reuse_policy(shape), options.read_ahead);
  return result;
}

}  // namespace hearth
