// Random weights made directly in their stored form: random code bits, and scales chosen so that
// the weights have the root mean square asked for. Nothing is quantized, so a core makes gigabytes
// a second.
#pragma once

#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

// An endless row of random words, each a function of the key and its index alone: whoever makes a
// piece of a file makes the same bytes.
class RandomWords {
 public:
  explicit RandomWords(uint64_t key) : key_(key) {}

  uint64_t operator[](uint64_t index) const { return scramble(key_ + (index + 1) * kStep); }
  // Another row, independent of this one and of those of other names.
  RandomWords child(uint64_t name) const {
    return RandomWords(scramble(key_ ^ scramble(name + kStep)));
  }
  // The first `bytes` bytes.
  void copy(int64_t bytes, unsigned char* out) const;
  // Word `index` as a sample of a bell curve of mean 0 and variance 1 that ends at 3.5.
  float normal(uint64_t index) const;

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;  // the golden ratio: odd, without pattern

  // SplitMix64's finalizer.
  static uint64_t scramble(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }

  uint64_t key_;
};

class RandomBlocks {
 public:
  // Weights around `mean` (0 for block formats) that lie `spread` from it in the root mean square.
  RandomBlocks(TensorType type, float mean, float spread);

  // `count` weights, a multiple of the block size.
  void fill(const RandomWords& words, int64_t count, unsigned char* out) const;

 private:
  void fill_plain(const RandomWords& words, int64_t count, unsigned char* out) const;
  void set_mxfp4_scale(unsigned char* block) const;
  void set_scales(unsigned char* block) const;

  TensorType type_;
  float mean_;
  float spread_;
  uint16_t scale_ = 0;             // half float
  uint16_t minimum_ = 0;           // half float; formats with a minimum
  int scale_offset_ = 0;           // where they stand in a block
  int minimum_offset_ = -1;        // -1: no minimum
  uint8_t exponent_ = 0;           // MXFP4
  uint32_t larger_exponents_ = 0;  // MXFP4: of 256 blocks those with the next one
};

}  // namespace hearth
