// The GPU through CUDA's runtime; only in builds that have it.
#pragma once

#include "device/device.h"

namespace hearth {

FoundDevice open_cuda_device(int index);

}  // namespace hearth
