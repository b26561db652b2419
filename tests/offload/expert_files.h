// Experts of random bytes in files, as a cache reads them: stacks at any multiple of 32, of other
// sizes in each layer, spread over several files.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "format/tensor_dir.h"
#include "offload/store/expert_weights.h"
#include "support.h"

namespace hearth::test {

class ExpertFiles {
 public:
  ExpertFiles(int32_t layers, int32_t experts, int files, uint64_t seed) : experts_(experts) {
    std::mt19937_64 random(seed);
    contents_.resize(files);
    for (int32_t l = 0; l < layers; ++l) {
      LayerExperts layer{};
      const int64_t hidden = 8 + static_cast<int64_t>(random() % 24), dim = 40;
      const std::array<std::array<int64_t, 2>, 3> shapes = {
          {{hidden, dim}, {hidden, dim}, {dim, hidden}}};
      std::array<Matrix*, 3> stacks = {&layer.stacks.gate, &layer.stacks.up, &layer.stacks.down};
      for (int m = 0; m < 3; ++m) {
        const auto file = static_cast<int32_t>(random() % files);
        std::string& bytes = contents_[file];
        bytes.append(32 * (random() % 50), '\0');
        *stacks[m] = {TensorType::kF32, shapes[m][0] * experts, shapes[m][1], nullptr};
        layer.places[m] = {file, std::ssize(bytes)};
        const int64_t count = shapes[m][0] * experts * shapes[m][1] * 4;
        for (int64_t i = 0; i < count; ++i) bytes.push_back(static_cast<char>(random()));
        bytes.append((32 - bytes.size() % 32) % 32, '\0');
      }
      layers_.push_back(layer);
    }
    for (int f = 0; f < files; ++f) {
      dir_.files.push_back({folder_.path() / ("part" + std::to_string(f)), nullptr});
      std::ofstream(dir_.files[f].path, std::ios::binary) << contents_[f];
    }
  }

  const TensorDir& dir() const { return dir_; }
  const std::vector<LayerExperts>& layers() const { return layers_; }

  // Whether the weights are those of the file.
  bool matches(int32_t layer, int32_t expert, const ExpertWeights& weights) const {
    const std::array<Matrix, 3> found = {weights.gate, weights.up, weights.down};
    for (int m = 0; m < 3; ++m) {
      const int64_t bytes = found[m].rows * row_bytes(found[m].type, found[m].cols);
      const StackPlace& place = layers_[layer].places[m];
      if (std::memcmp(found[m].data, contents_[place.file].data() + place.offset + expert * bytes,
                      bytes) != 0) {
        return false;
      }
    }
    return true;
  }
  int32_t experts() const { return experts_; }

 private:
  const int32_t experts_;
  const TemporaryFolder folder_;
  std::vector<std::string> contents_;
  std::vector<LayerExperts> layers_;
  TensorDir dir_;
};

}  // namespace hearth::test
