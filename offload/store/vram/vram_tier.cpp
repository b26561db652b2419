#include "offload/store/vram/vram_tier.h"

#include "base/check.h"

namespace hearth {
namespace {

int64_t whole_units(int64_t bytes) { return (bytes + 15) / 16 * 16; }

int64_t part_bytes(const Matrix& stack, int32_t experts) {
  return stack.rows / experts * row_bytes(stack.type, stack.cols);
}

// Gives every expert its place and its pointer; without a device it only counts.
class Loader {
 public:
  explicit Loader(int32_t experts) : experts_(experts) {}
  Loader(int32_t experts, Device& device, unsigned char* memory)
      : experts_(experts), device_(&device), memory_(memory), stream_(device.create_stream()) {}

  DeviceExperts load(const ExpertWeights& stacks, int32_t held) {
    return {matrices(stacks.gate, held), matrices(stacks.up, held), matrices(stacks.down, held)};
  }
  int64_t bytes() const { return bytes_; }
  void wait() { device_->synchronize(stream_); }

 private:
  GpuExpertMatrices matrices(const Matrix& stack, int32_t held) {
    const int64_t bytes = part_bytes(stack, experts_);
    std::vector<const unsigned char*>& pointers = pointers_.emplace_back(experts_);
    for (int32_t e = 0; e < held; ++e) pointers[e] = copy(stack.data + e * bytes, bytes);
    const auto table_bytes = static_cast<int64_t>(pointers.size() * sizeof(pointers[0]));
    const unsigned char* table = copy(pointers.data(), table_bytes);
    return {stack.type, stack.rows / experts_, stack.cols,
            reinterpret_cast<const unsigned char* const*>(table)};
  }

  const unsigned char* copy(const void* from, int64_t bytes) {
    unsigned char* place = memory_ + bytes_;
    bytes_ += whole_units(bytes);
    if (device_ == nullptr) return nullptr;
    device_->copy_to_device(place, from, static_cast<size_t>(bytes), stream_);
    return place;
  }

  const int32_t experts_;
  Device* device_ = nullptr;
  unsigned char* memory_ = nullptr;
  Stream stream_;
  int64_t bytes_ = 0;
  std::vector<std::vector<const unsigned char*>> pointers_;  // kept until they are copied
};

}  // namespace

VramTier::VramTier(Device& device, std::vector<LayerExperts> layers, int32_t experts,
                   std::span<const int32_t> held)
    : experts_(experts),
      held_(held.begin(), held.end()),
      memory_(device.allocate(static_cast<size_t>(vram_tier_bytes(layers, experts, held)))) {
  HEARTH_CHECK(held_.size() == layers.size());
  Loader loader(experts, device, memory_.data());
  for (size_t i = 0; i < layers.size(); ++i) {
    layers_.push_back(loader.load(layers[i].stacks, held_[i]));
  }
  loader.wait();
}

int64_t vram_tier_bytes(const std::vector<LayerExperts>& layers, int32_t experts,
                        std::span<const int32_t> held) {
  Loader counting(experts);
  for (size_t i = 0; i < layers.size(); ++i) counting.load(layers[i].stacks, held[i]);
  return counting.bytes();
}

}  // namespace hearth
