// The device that the cases of this program run on: the fake one with emulated threads, or a GPU
// with --device cuda.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "device/device.h"

namespace hearth::test {

class Gpu {
 public:
  // Of the fake device, `seed` orders streams and threads.
  explicit Gpu(uint64_t seed = 0);
  ~Gpu() { device_->synchronize(); }  // copies may still read their sources

  const GpuKernels& kernels() { return device_->kernels(); }
  GpuStream stream() { return stream_.handle(); }

  // The values on the device, `before` of them into a buffer that ends with them.
  template <typename T>
  T* upload(const T* values, size_t count, size_t before = 0) {
    buffers_.push_back(device_->allocate((before + count) * sizeof(T)));
    T* place = buffers_.back().as<T>() + before;
    // The copy happens later; what it reads has to stay.
    sources_.emplace_back(reinterpret_cast<const char*>(values),
                          reinterpret_cast<const char*>(values + count));
    device_->copy_to_device(place, sources_.back().data(), count * sizeof(T), stream_);
    return place;
  }
  template <typename T>
  T* upload(const std::vector<T>& values) {
    return upload(values.data(), values.size());
  }
  template <typename T>
  T* allocate(size_t count) {
    buffers_.push_back(device_->allocate(count * sizeof(T)));
    return buffers_.back().as<T>();
  }
  // Waits for the stream.
  template <typename T>
  std::vector<T> download(const T* from, size_t count) {
    std::vector<T> values(count);
    device_->copy_to_host(values.data(), from, count * sizeof(T), stream_);
    device_->synchronize(stream_);
    return values;
  }

 private:
  std::unique_ptr<Device> device_;
  Stream stream_;
  std::vector<DeviceBuffer> buffers_;
  std::vector<std::vector<char>> sources_;
};

}  // namespace hearth::test
