// What every table measures with: a device with one stream, a clock, and memory that shows whether
// a kernel ran at all.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "base/tensor_type.h"
#include "device/device.h"
#include "gpu_kernels/bench/sizes.h"
#include "gpu_kernels/bench/table.h"

namespace hearth::bench {

using Values = std::vector<std::pair<std::string, double>>;

class Bench {
 public:
  Bench(Device& device, Sizes sizes)
      : device_(device), sizes_(std::move(sizes)), stream_(device.create_stream()) {}
  ~Bench() { device_.synchronize(); }

  Device& device() { return device_; }
  const GpuKernels& kernels() { return device_.kernels(); }
  const Sizes& sizes() const { return sizes_; }
  const Stream& stream() const { return stream_; }
  GpuStream handle() const { return stream_.handle(); }

  // Microseconds of one call of `enqueue`, among many without a wait between them. It is handed the
  // number of the call, by which it takes turns among copies of its data.
  using Enqueue = std::function<void(int64_t call)>;
  double us(const Enqueue& enqueue);

  // Of copies on the device, bytes read and written counted; measured when first asked for.
  double copy_gb_s();
  // Microseconds of the least kernel in a chain, likewise.
  double launch_floor_us();

  // {us, gb_s, share_of_copy} for a kernel that reads `bytes`.
  Values rates(double us, double bytes);

 private:
  double run(const Enqueue& enqueue, int64_t calls);

  Device& device_;
  Sizes sizes_;
  Stream stream_;
  int64_t calls_ = 0;
  std::optional<double> copy_gb_s_, launch_floor_us_;
};

// Equal parts of a buffer, with the same kind of data.
struct Copies {
  unsigned char* data;
  int64_t bytes;  // of one
  int64_t count;

  unsigned char* at(int64_t call) const { return data + call % count * bytes; }
};

// What one row of a table needs on the device. It goes when the work is done.
class Memory {
 public:
  explicit Memory(Bench& bench) : bench_(bench) {}
  ~Memory() { bench_.device().synchronize(); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  template <typename T>
  T* upload(const std::vector<T>& values) {
    T* place = allocate<T>(static_cast<int64_t>(values.size()));
    copy_in(place, values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
    return place;
  }
  template <typename T>
  T* allocate(int64_t count) {
    buffers_.push_back(bench_.device().allocate(static_cast<size_t>(count) * sizeof(T)));
    return buffers_.back().as<T>();
  }
  float* floats(int64_t count);  // random

  // Random weights, or rows of a cache.
  unsigned char* weights(TensorType type, int64_t bytes);
  // As many copies of a matrix as make up `walk_bytes`.
  Copies copies(TensorType type, int64_t bytes_of_one, int64_t walk_bytes);

  // For `count` floats or integers of four bytes, all NaN or -1. check_outputs throws an Error
  // where some of any of them still are: then a kernel did not run, or read what nobody wrote.
  template <typename T>
  T* output(int64_t count) {
    static_assert(sizeof(T) == sizeof(uint32_t));
    T* place = allocate<T>(count);
    spread(buffers_.back(), std::vector<unsigned char>(sizeof(T), 0xff));
    outputs_.push_back({place, count});
    return place;
  }
  void check_outputs(const std::string& what);

 private:
  struct Output {
    const void* place;
    int64_t words;
  };

  void copy_in(void* to, const void* from, int64_t bytes);
  // Fills a buffer with copies of `pattern`, of which the last may be cut.
  void spread(const DeviceBuffer& buffer, const std::vector<unsigned char>& pattern);

  Bench& bench_;
  std::vector<DeviceBuffer> buffers_;
  std::vector<Output> outputs_;
};

// Rows as matmul reads them.
struct Activations {
  const float* x;       // [n, k]
  GpuRoundedRows xq;    // [n, k]
  uint16_t* bfloat16s;  // [n, k]
};
Activations make_activations(Bench& bench, Memory& memory, int64_t n, int64_t k);

}  // namespace hearth::bench
