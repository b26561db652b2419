// The tables in order of speed, and the CPU features each one needs.
#include "cpu_kernels/registry.h"

#include <cpuid.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"

namespace hearth {

namespace amx {
extern const Kernels kKernels;
}
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

bool has_tiles() {
  // Of leaf 7's EDX.
  constexpr uint32_t kBfloat16Tiles = 1u << 22, kTiles = 1u << 24, kByteTiles = 1u << 25;
  constexpr uint32_t kAll = kBfloat16Tiles | kTiles | kByteTiles;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAll) == kAll;
}

// Linux saves the tile registers of processes only that have asked for them; their threads
// inherit the permission.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_amx() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16") && has_tiles() && may_use_tiles();
}

std::vector<const Kernels*> find_usable() {
  std::vector<const Kernels*> found;
  if (has_amx()) found.push_back(&amx::kKernels);
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

const Kernels* find_kernels(std::string_view name) {
  for (const Kernels* kernels :
       {&amx::kKernels, &avx512::kKernels, &avx2::kKernels, &reference::kKernels}) {
    if (name == kernels->name) return kernels;
  }
  return nullptr;
}

bool reads_quantized(TensorType type) {
  return type != TensorType::kF32 && type != TensorType::kF16 && type != TensorType::kBF16 &&
         type != TensorType::kF8_E4M3;
}

bool reads_rounded(const Kernels& kernels, const Matrix& w, bool prefill) {
  if (reads_quantized(w.type)) return true;
  const bool is_half = w.type == TensorType::kF16 || w.type == TensorType::kBF16;
  return is_half && prefill && kernels.reads_bfloat16 && w.cols % kQuantBlock == 0;
}

}  // namespace hearth
