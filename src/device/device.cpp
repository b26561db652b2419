#include "device/device.h"

#include <fmt/format.h>

#include <algorithm>

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

DeviceRange::DeviceRange(Device& device, size_t bytes)
    : device_(&device), page_(device.page_bytes()) {
  HEARTH_CHECK(!device.capturing_);
  if (bytes == 0) return;
  bytes_ = page_ == 0 ? bytes : (bytes + page_ - 1) / page_ * page_;
  if (page_ == 0) {
    data_ = static_cast<unsigned char*>(device.new_memory(bytes_));
    taken_ = bytes_;
  } else {
    data_ = static_cast<unsigned char*>(device.new_addresses(bytes_));
    has_memory_.assign(bytes_ / page_, false);
  }
}

DeviceRange::~DeviceRange() {
  if (data_ == nullptr) return;
  if (page_ == 0) {
    device_->free_memory(data_);
    return;
  }
  give_back(0);
  device_->free_addresses(data_, bytes_);
}

void DeviceRange::swap(DeviceRange& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(page_, other.page_);
  std::swap(taken_, other.taken_);
  has_memory_.swap(other.has_memory_);
  runs_.swap(other.runs_);
}

void DeviceRange::take(size_t begin, size_t end) {
  HEARTH_CHECK(begin <= end && end <= bytes_);
  if (page_ == 0 || begin == end) return;
  HEARTH_CHECK(!device_->capturing_);
  const size_t last = (end + page_ - 1) / page_;
  for (size_t first = begin / page_; first < last; ++first) {
    if (has_memory_[first]) continue;
    size_t count = 1;
    while (first + count < last && !has_memory_[first + count]) ++count;
    device_->map(data_ + first * page_, count * page_);
    runs_.push_back({first, count});
    std::fill_n(has_memory_.begin() + static_cast<ptrdiff_t>(first), count, true);
    taken_ += count * page_;
    first += count;
  }
}

void DeviceRange::give_back(size_t from) {
  if (page_ == 0) return;
  std::erase_if(runs_, [&](const Run& run) {
    if (run.first * page_ < from) return false;
    device_->unmap(data_ + run.first * page_, run.count * page_);
    std::fill_n(has_memory_.begin() + static_cast<ptrdiff_t>(run.first), run.count, false);
    taken_ -= run.count * page_;
    return true;
  });
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
