// Where the parts of a model lie, and in what portions it works: what the planner decides and the
// cost model judges.
#pragma once

#include <cstdint>

namespace hearth {

struct Placement {
  int32_t chunk_tokens = 1;  // tokens of a prompt taken at once
  // The dense parts of the last `gpu_layers` layers, with their windows and index keys, lie in
  // VRAM; the output matrix does where any layer does.
  int32_t gpu_layers = 0;
  // Compressed rows that tokens read only a few of (CSA) stay in RAM all the same, pinned: kernels
  // read and write them over the link.
  bool entries_in_ram = false;
  // Routed experts by where they lie; each lies in one place.
  int64_t vram_experts = 0;
  int64_t ram_experts = 0;
  int64_t nvme_experts = 0;

  bool operator==(const Placement&) const = default;
  bool uses_gpu() const { return gpu_layers > 0; }
  // Whether a layer's experts stay in RAM for the CPU alone: the engine then interleaves their
  // rows, where its kernels like that.
  bool interleaves_experts(bool on_gpu) const { return !on_gpu && nvme_experts == 0; }
  bool on_gpu(int64_t layer, int64_t layers) const { return layer >= layers - gpu_layers; }
};

}  // namespace hearth
