#include "gpu_kernels/bench/cublas.h"

#ifdef HEARTH_HAS_CUBLAS
#include <cublas_v2.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "base/error.h"

#define HEARTH_AS_TEXT(name) HEARTH_AS_TEXT_(name)
#define HEARTH_AS_TEXT_(name) #name

namespace hearth::bench {
namespace {

constexpr const char* kLibrary = "libcublas.so." HEARTH_AS_TEXT(CUBLAS_VER_MAJOR);

class LoadedCublas final : public Cublas {
 public:
  static FoundCublas make(void* library, GpuStream stream) {
    std::unique_ptr<LoadedCublas> loaded(new LoadedCublas);
    loaded->create_ = find<decltype(&cublasCreate_v2)>(library, "cublasCreate_v2");
    loaded->destroy_ = find<decltype(&cublasDestroy_v2)>(library, "cublasDestroy_v2");
    loaded->set_stream_ = find<decltype(&cublasSetStream_v2)>(library, "cublasSetStream_v2");
    loaded->gemm_ = find<Gemm>(library, "cublasGemmEx");
    if (loaded->create_ == nullptr || loaded->destroy_ == nullptr ||
        loaded->set_stream_ == nullptr || loaded->gemm_ == nullptr) {
      return {nullptr, fmt::format("{} lacks functions", kLibrary)};
    }
    cublasStatus_t status = loaded->create_(&loaded->handle_);
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = loaded->set_stream_(loaded->handle_, static_cast<cudaStream_t>(stream));
    }
    if (status != CUBLAS_STATUS_SUCCESS) {
      return {nullptr,
              fmt::format("{} does not start, status {}", kLibrary, static_cast<int>(status))};
    }
    return {std::move(loaded), ""};
  }
  ~LoadedCublas() override {
    if (handle_ != nullptr) destroy_(handle_);
  }

  // In columns, as it counts: y [rows, n] = transposed w [k, rows] times x [k, n].
  void matmul(const void* w, const void* x, float* y, int64_t rows, int64_t k, int64_t n) override {
    const float one = 1, zero = 0;
    const cublasStatus_t status =
        gemm_(handle_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(rows), static_cast<int>(n),
              static_cast<int>(k), &one, w, CUDA_R_16BF, static_cast<int>(k), x, CUDA_R_16BF,
              static_cast<int>(k), &zero, y, CUDA_R_32F, static_cast<int>(rows), CUBLAS_COMPUTE_32F,
              CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS) {
      throw Error(fmt::format("a product failed with status {}", static_cast<int>(status)),
                  kLibrary, "");
    }
  }

 private:
  // The header declares it twice, for C and for C++.
  using Gemm = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int,
                                  int, const void*, const void*, cudaDataType, int, const void*,
                                  cudaDataType, int, const void*, void*, cudaDataType, int,
                                  cublasComputeType_t, cublasGemmAlgo_t);

  LoadedCublas() = default;
  template <typename Function>
  static Function find(void* library, const char* name) {
    return reinterpret_cast<Function>(dlsym(library, name));
  }

  decltype(&cublasCreate_v2) create_ = nullptr;
  decltype(&cublasDestroy_v2) destroy_ = nullptr;
  decltype(&cublasSetStream_v2) set_stream_ = nullptr;
  Gemm gemm_ = nullptr;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace

FoundCublas open_cublas(GpuStream stream) {
  // Never closed: it is in use until the program ends.
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return {nullptr, fmt::format("no {}: {}", kLibrary, dlerror())};
  return LoadedCublas::make(library, stream);
}

}  // namespace hearth::bench
#else
namespace hearth::bench {

FoundCublas open_cublas(GpuStream) { return {nullptr, "this build has no cuBLAS"}; }

}  // namespace hearth::bench
#endif
