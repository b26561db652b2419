// Caches of several sequences, on the host as the device has them.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "cpu_kernels/registry.h"
#include "gpu_kernels/gpu.h"
#include "support.h"

namespace hearth::test {

using Floats = std::vector<float>;
using Bytes = std::vector<unsigned char>;

inline const Kernels& reference() { return choose_kernels("reference"); }

inline Floats random_floats(size_t n, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats values(n);
  for (float& value : values) value = normal(random);
  return values;
}

inline size_t value_bytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// Rows of `width` values that are all NaN until they are set.
class CacheRows {
 public:
  CacheRows(KvType type, int64_t count, int32_t width)
      : type_(type), width_(width), bytes_(count * width * value_bytes(type), 0xff) {}

  const unsigned char* row(int64_t i) const {
    return bytes_.data() + i * width_ * static_cast<int64_t>(value_bytes(type_));
  }
  void set(int64_t i, const float* values) {
    reference().store_kv(values, width_, type_, const_cast<unsigned char*>(row(i)));
  }
  const Bytes& bytes() const { return bytes_; }
  Floats floats() const {
    Floats values(bytes_.size() / value_bytes(type_));
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits = 0;
      std::memcpy(reinterpret_cast<char*>(&bits) + (type_ == KvType::kF32 ? 0 : 2),
                  bytes_.data() + i * value_bytes(type_), value_bytes(type_));
      std::memcpy(&values[i], &bits, sizeof(bits));
    }
    return values;
  }
  void replace(Bytes bytes) { bytes_ = std::move(bytes); }

 private:
  KvType type_;
  int32_t width_;
  Bytes bytes_;
};

}  // namespace hearth::test
