// The one file outside gpu_kernels/ that talks to CUDA.
#include "device/cuda_device.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "base/units.h"
#include "gpu_kernels/registry.h"

namespace hearth {
namespace {

constexpr int kMajorMin = 9;  // the oldest architecture that there are kernels for

// Memory behind addresses that stay. Only the driver has these calls; asked for by name, so that a
// program starts where there is no driver.
class Pages {
 public:
  explicit Pages(int index) {
    decltype(&cuDeviceGet) device_of = nullptr;
    decltype(&cuDeviceGetAttribute) attribute = nullptr;
    decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
    CUdevice device = 0;
    int is_supported = 0;
    if (!find("cuDeviceGet", device_of) || !find("cuDeviceGetAttribute", attribute) ||
        !find("cuMemGetAllocationGranularity", granularity) ||
        !find("cuMemAddressReserve", reserve_) || !find("cuMemAddressFree", free_) ||
        !find("cuMemCreate", create_) || !find("cuMemRelease", release_) ||
        !find("cuMemMap", map_) || !find("cuMemUnmap", unmap_) ||
        !find("cuMemSetAccess", set_access_) || device_of(&device, index) != CUDA_SUCCESS ||
        attribute(&is_supported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device) !=
            CUDA_SUCCESS ||
        is_supported == 0) {
      return;
    }
    properties_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties_.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties_.location.id = index;
    size_t bytes = 0;
    if (granularity(&bytes, &properties_, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) == CUDA_SUCCESS) {
      bytes_ = bytes;
    }
  }

  size_t bytes() const { return bytes_; }  // of one; 0: there are none
  CUresult reserve(void** begin, size_t bytes) const {
    CUdeviceptr address = 0;
    const CUresult result = reserve_(&address, bytes, 0, 0, 0);
    *begin = reinterpret_cast<void*>(address);
    return result;
  }
  CUresult free(void* begin, size_t bytes) const { return free_(address_of(begin), bytes); }
  CUresult map(void* begin, size_t bytes) const {
    CUmemGenericAllocationHandle memory = 0;
    CUresult result = create_(&memory, bytes, &properties_, 0);
    if (result != CUDA_SUCCESS) return result;
    result = map_(address_of(begin), bytes, 0, memory, 0);
    release_(memory);  // it lives as long as it is mapped
    if (result != CUDA_SUCCESS) return result;
    const CUmemAccessDesc access = {properties_.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    result = set_access_(address_of(begin), bytes, &access, 1);
    if (result != CUDA_SUCCESS) unmap_(address_of(begin), bytes);
    return result;
  }
  CUresult unmap(void* begin, size_t bytes) const { return unmap_(address_of(begin), bytes); }

 private:
  static CUdeviceptr address_of(void* begin) { return reinterpret_cast<CUdeviceptr>(begin); }
  template <typename Call>
  static bool find(const char* name, Call& call) {
    constexpr unsigned kSince = 12000;  // as this version of CUDA has them
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status{};
    const cudaError_t result =
        cudaGetDriverEntryPointByVersion(name, &found, kSince, cudaEnableDefault, &status);
    if (result != cudaSuccess) cudaGetLastError();
    call = reinterpret_cast<Call>(found);
    return result == cudaSuccess && status == cudaDriverEntryPointSuccess;
  }

  size_t bytes_ = 0;
  CUmemAllocationProp properties_{};
  decltype(&cuMemAddressReserve) reserve_ = nullptr;
  decltype(&cuMemAddressFree) free_ = nullptr;
  decltype(&cuMemCreate) create_ = nullptr;
  decltype(&cuMemRelease) release_ = nullptr;
  decltype(&cuMemMap) map_ = nullptr;
  decltype(&cuMemUnmap) unmap_ = nullptr;
  decltype(&cuMemSetAccess) set_access_ = nullptr;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, const cudaDeviceProp& properties)
      : index_(index),
        name_(properties.name),
        processors_(properties.multiProcessorCount),
        kernels_(cuda_kernels()),
        pages_(index) {
    HEARTH_CHECK(kernels_ != nullptr);
    use();
  }

  const std::string& name() const override { return name_; }
  const GpuKernels& kernels() const override { return *kernels_; }
  DeviceMemory memory() const override {
    use();
    size_t free_bytes = 0, total_bytes = 0;
    expect(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
    return {static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes)};
  }

  size_t page_bytes() const override { return pages_.bytes(); }
  DeviceCores cores() const override {
    int kilohertz = 0;
    expect(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, index_),
           "asking for the clock");
    return {processors_, 1e-6 * kilohertz};
  }

  void copy_to_device(void* to, const void* from, size_t bytes, const Stream& stream) override {
    copy(to, from, bytes, cudaMemcpyHostToDevice, stream);
  }
  void copy_to_host(void* to, const void* from, size_t bytes, const Stream& stream) override {
    copy(to, from, bytes, cudaMemcpyDeviceToHost, stream);
  }
  void copy_on_device(void* to, const void* from, size_t bytes, const Stream& stream) override {
    copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  }

  void record(const Event& event, const Stream& stream) override {
    expect(cudaEventRecord(cuda(event), cuda(stream)), "recording an event");
  }
  void wait(const Stream& stream, const Event& event) override {
    expect(cudaStreamWaitEvent(cuda(stream), cuda(event), 0), "waiting for an event");
  }
  bool done(const Event& event) override {
    const cudaError_t result = cudaEventQuery(cuda(event));
    if (result == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    expect(result, "asking for an event");
    return true;
  }

  double seconds_between(const Event& first, const Event& last) override {
    float milliseconds = 0;
    expect(cudaEventElapsedTime(&milliseconds, cuda(first), cuda(last)),
           "asking for the time between events");
    return double{milliseconds} / 1000;
  }

  void launch(const DeviceGraph& graph, const Stream& stream) override {
    expect(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.get()), cuda(stream)),
           "launching a graph");
  }

  void synchronize() override {
    use();
    expect(cudaDeviceSynchronize(), "waiting for all work");
  }
  void synchronize(const Stream& stream) override {
    expect(cudaStreamSynchronize(cuda(stream)), "waiting for a stream");
  }
  void synchronize(const Event& event) override {
    expect(cudaEventSynchronize(cuda(event)), "waiting for an event");
  }

 protected:
  void* new_memory(size_t bytes) override {
    use();
    void* memory = nullptr;
    const cudaError_t result = cudaMalloc(&memory, (bytes + 15) / 16 * 16);
    if (result == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw_out_of_memory(bytes);
    }
    expect(result, "allocating memory");
    return memory;
  }
  void* new_pinned(size_t bytes) override {
    use();
    void* memory = nullptr;
    // With unified addressing it is mapped for every device at the host's address, whatever is
    // asked for; memory that is pinned later (cudaHostRegister) need not be.
    const cudaError_t result = cudaHostAlloc(&memory, bytes, cudaHostAllocDefault);
    if (is_refusal(result)) {
      cudaGetLastError();
      throw_cannot_pin(bytes, cudaGetErrorString(result));
    }
    expect(result, "pinning memory of the host");
    return memory;
  }
  void* new_addresses(size_t bytes) override {
    use();
    void* begin = nullptr;
    expect_driver(pages_.reserve(&begin, bytes), "reserving addresses");
    return begin;
  }
  void free_addresses(void* begin, size_t bytes) noexcept override {
    freed(of_driver(pages_.free(begin, bytes)));
  }
  void map(void* begin, size_t bytes) override {
    use();
    const CUresult result = pages_.map(begin, bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) throw_out_of_memory(bytes);
    expect_driver(result, "putting memory behind addresses");
  }
  void unmap(void* begin, size_t bytes) noexcept override {
    freed(cudaDeviceSynchronize());  // kernels may still use it
    freed(of_driver(pages_.unmap(begin, bytes)));
  }
  std::string try_pin(void* memory, size_t bytes) override {
    use();
    const cudaError_t result = cudaHostRegister(memory, bytes, cudaHostRegisterDefault);
    if (!is_refusal(result)) {
      expect(result, "pinning a range of the host's memory");
      return "";
    }
    cudaGetLastError();
    return fmt::format("{} of the host's memory cannot be pinned: {}",
                       binary_size(static_cast<int64_t>(bytes)), cudaGetErrorString(result));
  }
  void* new_stream() override {
    use();
    cudaStream_t stream = nullptr;
    expect(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
    return stream;
  }
  void* new_event(EventTiming timing) override {
    use();
    cudaEvent_t event = nullptr;
    const unsigned flags = timing == EventTiming::kOn ? cudaEventDefault : cudaEventDisableTiming;
    expect(cudaEventCreateWithFlags(&event, flags), "creating an event");
    return event;
  }

  void begin_capture(const Stream& stream) override {
    use();
    expect(cudaStreamBeginCapture(cuda(stream), cudaStreamCaptureModeThreadLocal),
           "beginning to capture a stream");
  }
  void* end_capture(const Stream& stream) override {
    cudaGraph_t graph = nullptr;
    expect(cudaStreamEndCapture(cuda(stream), &graph), "capturing a stream");
    cudaGraphExec_t ready = nullptr;
    const cudaError_t result = cudaGraphInstantiate(&ready, graph, 0);
    freed(cudaGraphDestroy(graph));
    expect(result, "making a graph of a captured stream");
    return ready;
  }
  void drop_capture(const Stream& stream) noexcept override {
    cudaGraph_t graph = nullptr;
    // What was thrown may have made the capture invalid: then this fails, and ends it all the same.
    if (cudaStreamEndCapture(cuda(stream), &graph) != cudaSuccess) cudaGetLastError();
    if (graph != nullptr) freed(cudaGraphDestroy(graph));
  }
  void free_graph(void* graph) noexcept override {
    freed(cudaDeviceSynchronize());  // CUDA does not say what becomes of a launch that still runs
    freed(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
  }
  void free_memory(void* memory) noexcept override { freed(cudaFree(memory)); }
  void free_pinned(void* memory) noexcept override { freed(cudaFreeHost(memory)); }
  void end_pin(void* memory) noexcept override {
    freed(cudaDeviceSynchronize());  // copies may still use it
    freed(cudaHostUnregister(memory));
  }
  void free_stream(void* stream) noexcept override {
    freed(cudaStreamDestroy(static_cast<cudaStream_t>(stream)));
  }
  void free_event(void* event) noexcept override {
    freed(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
  }

 private:
  static cudaStream_t cuda(const Stream& stream) { return static_cast<cudaStream_t>(stream.get()); }
  static cudaEvent_t cuda(const Event& event) { return static_cast<cudaEvent_t>(event.get()); }

  // The system's limits and kinds of memory that it does not pin, files for example.
  static bool is_refusal(cudaError_t result) {
    return result == cudaErrorMemoryAllocation || result == cudaErrorNotSupported ||
           result == cudaErrorInvalidValue || result == cudaErrorNotPermitted ||
           result == cudaErrorOperatingSystem;
  }

  // CUDA's current device is the thread's, and another thread may come.
  void use() const { expect(cudaSetDevice(index_), "choosing the device"); }

  // Numbers of the driver's are those of the runtime.
  static cudaError_t of_driver(CUresult result) { return static_cast<cudaError_t>(result); }
  void expect_driver(CUresult result, const char* doing) const { expect(of_driver(result), doing); }

  // Every failure is told once: CUDA's own note of it (cudaGetLastError) is for the kernels, which
  // would take it for one of theirs.
  void expect(cudaError_t result, const char* doing) const {
    if (result == cudaSuccess && free_result_ == cudaSuccess) return;
    if (result == cudaSuccess) {
      doing = "giving back what was made";
      result = free_result_;
    }
    cudaGetLastError();
    throw Error(fmt::format("{} failed: {}", doing, cudaGetErrorString(result)), name_,
                "The kernel log (dmesg) may tell more; --no-gpu does without the GPU");
  }

  // A destructor cannot throw: the next call does.
  void freed(cudaError_t result) noexcept {
    if (result == cudaSuccess) return;
    cudaGetLastError();
    if (free_result_ == cudaSuccess) free_result_ = result;
  }

  void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, const Stream& stream) {
    if (bytes > 0) expect(cudaMemcpyAsync(to, from, bytes, kind, cuda(stream)), "copying");
  }

  int index_;
  std::string name_;
  int32_t processors_;
  const GpuKernels* kernels_;
  const Pages pages_;
  cudaError_t free_result_ = cudaSuccess;
};

}  // namespace

FoundDevice open_cuda_device(int index) {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return {nullptr, "no CUDA device: no NVIDIA driver is loaded"};
  }
  if (const cudaError_t asked = cudaGetDeviceCount(&count); asked != cudaSuccess) {
    return {nullptr, fmt::format("no CUDA device: {}", cudaGetErrorString(asked))};
  }
  if (index < 0 || index >= count)
    return {nullptr, fmt::format("no CUDA device {}: there are {}", index, count)};
  cudaDeviceProp properties{};
  if (const cudaError_t asked = cudaGetDeviceProperties(&properties, index); asked != cudaSuccess) {
    return {nullptr, fmt::format("no CUDA device {}: {}", index, cudaGetErrorString(asked))};
  }
  if (properties.major < kMajorMin) {
    return {nullptr, fmt::format("{} is too old: compute capability {}.{}, {}.0 is needed",
                                 properties.name, properties.major, properties.minor, kMajorMin)};
  }
  if (properties.unifiedAddressing == 0) {
    return {nullptr, fmt::format("{} has no unified addressing: its kernels could not read the "
                                 "host's memory",
                                 properties.name)};
  }
  return {std::make_unique<CudaDevice>(index, properties), ""};
}

}  // namespace hearth
