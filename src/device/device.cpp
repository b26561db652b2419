#include "device/device.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "base/units.h"

namespace hearth {

void release_memory(Device& device, void* memory) noexcept { device.free_memory(memory); }
void release_pinned(Device& device, void* memory) noexcept { device.free_pinned(memory); }
void release_stream(Device& device, void* stream) noexcept { device.free_stream(stream); }
void release_event(Device& device, void* event) noexcept { device.free_event(event); }
void release_graph(Device& device, void* graph) noexcept { device.free_graph(graph); }
void unpin(Device& device, void* memory) noexcept { device.end_pin(memory); }

DeviceBuffer Device::allocate(size_t bytes) {
  HEARTH_CHECK(!capturing_);
  if (bytes == 0) return {};
  return {*this, new_memory(bytes), bytes};
}

PinnedBuffer Device::allocate_pinned(size_t bytes) {
  HEARTH_CHECK(!capturing_);
  if (bytes == 0) return {};
  return {*this, new_pinned(bytes), bytes};
}

Pinning Device::pin(void* memory, size_t bytes) {
  HEARTH_CHECK(!capturing_);
  if (bytes == 0) return {};
  if (std::string why_not = try_pin(memory, bytes); !why_not.empty())
    return {{}, std::move(why_not)};
  return {{*this, memory, bytes}, ""};
}

Stream Device::create_stream() {
  HEARTH_CHECK(!capturing_);
  return {*this, new_stream()};
}

Event Device::create_event(EventTiming timing) {
  HEARTH_CHECK(!capturing_);
  return {*this, new_event(timing)};
}

DeviceGraph Device::capture(const Stream& stream, const std::function<void()>& enqueue) {
  HEARTH_CHECK(!capturing_);
  begin_capture(stream);
  capturing_ = true;
  try {
    enqueue();
  } catch (...) {
    capturing_ = false;
    drop_capture(stream);
    throw;
  }
  capturing_ = false;
  return {*this, end_capture(stream)};
}

void Device::throw_out_of_memory(size_t bytes) const {
  const DeviceMemory now = memory();
  throw Error(fmt::format("{} of GPU memory were asked for, {} of {} are free",
                          binary_size(static_cast<int64_t>(bytes)), binary_size(now.free_bytes),
                          binary_size(now.total_bytes)),
              name(), "Lower --gpu-budget, or end what else uses the GPU");
}

void Device::throw_cannot_pin(size_t bytes, const std::string& why) const {
  throw Error(fmt::format("{} of the host's memory were to be pinned: {}",
                          binary_size(static_cast<int64_t>(bytes)), why),
              name(), "Choose a smaller context (--ctx) or chunk (--chunk), or free memory");
}

}  // namespace hearth
