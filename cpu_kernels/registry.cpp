// The tables in order of speed, and the CPU features each one needs.
#include "cpu_kernels/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"

namespace hearth {

namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace reference {
extern const Kernels kKernels;
}

namespace {

// These also ask whether the operating system saves the registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

// VBMI sets the limit: Ice Lake, Zen 4 and later.
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}

std::vector<const Kernels*> find_usable() {
  std::vector<const Kernels*> found;
  if (has_avx512()) found.push_back(&avx512::kKernels);
  if (has_avx2()) found.push_back(&avx2::kKernels);
  found.push_back(&reference::kKernels);
  return found;
}

}  // namespace

std::span<const Kernels* const> usable_kernels() {
  static const std::vector<const Kernels*> usable = find_usable();
  return usable;
}

const Kernels& choose_kernels(std::string_view name) {
  const std::span<const Kernels* const> usable = usable_kernels();
  if (name.empty()) return *usable.front();
  std::vector<std::string_view> names;
  for (const Kernels* kernels : usable) {
    if (name == kernels->name) return *kernels;
    names.push_back(kernels->name);
  }
  throw usage_error(fmt::format("instruction set '{}' is not usable on this machine", name),
                    "--isa", fmt::format("Choose one of: {}", fmt::join(names, ", ")));
}

bool reads_quantized(TensorType type) {
  return type != TensorType::kF32 && type != TensorType::kF16 && type != TensorType::kBF16;
}

}  // namespace hearth
