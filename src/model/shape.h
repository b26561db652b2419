// The planner's view of a model, taken from its header: no weight is read, of data only the tables
// of hash-routed layers.
#pragma once

#include <string>

#include "base/limits.h"
#include "cpu_kernels/kernels.h"
#include "format/tensor_dir.h"
#include "model/config.h"
#include "offload/plan/model_shape.h"

namespace hearth {

// `kernels` and `kv` decide how activations and cache rows are stored, `limits` (but its chunk)
// how large buffers are. Bytes of caches and scratch are those of the very objects an engine makes,
// which take address space alone until they are written.
ModelShape shape_of(const TensorDir& dir, const ModelConfig& config, const Kernels& kernels,
                    KvType kv, const Limits& limits = {});

// The header of a released model, "flash" or "pro", with routed experts in `quant` and attention
// and shared experts in `dense` (names as `hearth synth` takes them, "fp8" too). Its tensors have
// no data. Throws a usage Error for other names.
TensorDir released_header(const std::string& name, const std::string& quant,
                          const std::string& dense);

}  // namespace hearth
