#include "gpu_kernels/bench/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "gpu_kernels/bench/random_data.h"

namespace hearth::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPatternBytes = int64_t{16} << 20;  // of random weights; more are copies of them

}  // namespace

double Bench::run(const Enqueue& enqueue, int64_t calls) {
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; i < calls; ++i) enqueue(calls_++);
  device_.synchronize(stream_);
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

double Bench::us(const Enqueue& enqueue) {
  device_.synchronize(stream_);
  int64_t calls = 1;
  run(enqueue, calls);  // the first of a kernel also loads it
  // The runs that find out how many calls a run needs warm up too.
  for (double took = run(enqueue, calls); took < sizes_.run_us; took = run(enqueue, calls)) {
    const double wanted = 1.1 * sizes_.run_us / took * static_cast<double>(calls);
    calls = std::clamp(static_cast<int64_t>(wanted), calls + 1, calls * 20);
  }
  std::vector<double> runs;
  for (int i = 0; i < sizes_.runs; ++i) {
    runs.push_back(run(enqueue, calls) / static_cast<double>(calls));
  }
  std::ranges::nth_element(runs, runs.begin() + sizes_.runs / 2);
  return runs[sizes_.runs / 2];
}

double Bench::copy_gb_s() {
  if (!copy_gb_s_) {
    Memory memory(*this);
    const int64_t bytes = sizes_.device_copy_bytes;
    const unsigned char* from = memory.weights(TensorType::kBF16, bytes);
    auto* to = memory.allocate<unsigned char>(bytes);
    const double took = us([&](int64_t) { device_.copy_on_device(to, from, bytes, stream_); });
    copy_gb_s_ = 2 * static_cast<double>(bytes) / took * 1e-3;
  }
  return *copy_gb_s_;
}

double Bench::launch_floor_us() {
  if (!launch_floor_us_) {
    Memory memory(*this);
    const GpuAddParams add = {memory.floats(1), 1, memory.floats(1)};
    const double took = us([&](int64_t) {
      for (int64_t i = 0; i < sizes_.chain; ++i) kernels().add(add, handle());
    });
    launch_floor_us_ = took / static_cast<double>(sizes_.chain);
  }
  return *launch_floor_us_;
}

Values Bench::rates(double us, double bytes) {
  const double gb_s = bytes / us * 1e-3;
  return {{"us", us}, {"gb_s", gb_s}, {"share_of_copy", gb_s / copy_gb_s()}};
}

float* Memory::floats(int64_t count) { return upload(random_floats(count)); }

unsigned char* Memory::weights(TensorType type, int64_t bytes) {
  const int64_t block = type_info(type).block_bytes;
  auto* place = allocate<unsigned char>(bytes);
  spread(buffers_.back(), random_weights(type, std::min(bytes, kPatternBytes / block * block)));
  return place;
}

Copies Memory::copies(TensorType type, int64_t bytes_of_one, int64_t walk_bytes) {
  const int64_t count = (walk_bytes + bytes_of_one - 1) / bytes_of_one;
  return {weights(type, count * bytes_of_one), bytes_of_one, count};
}

void Memory::copy_in(void* to, const void* from, int64_t bytes) {
  bench_.device().copy_to_device(to, from, static_cast<size_t>(bytes), bench_.stream());
  bench_.device().synchronize(bench_.stream());  // the source may go
}

void Memory::spread(const DeviceBuffer& buffer, const std::vector<unsigned char>& pattern) {
  const size_t bytes = buffer.bytes();
  size_t filled = std::min(pattern.size(), bytes);
  copy_in(buffer.data(), pattern.data(), static_cast<int64_t>(filled));
  // All that is there once more, each time: whole patterns, so that they go on.
  for (; filled < bytes; filled += std::min(filled, bytes - filled)) {
    bench_.device().copy_on_device(buffer.data() + filled, buffer.data(),
                                   std::min(filled, bytes - filled), bench_.stream());
  }
}

void Memory::check_outputs(const std::string& what) {
  constexpr uint32_t kExponent = 0x7f800000;  // all ones: NaN or infinite
  for (const Output& output : outputs_) {
    std::vector<uint32_t> words(output.words);
    bench_.device().copy_to_host(words.data(), output.place, words.size() * sizeof(uint32_t),
                                 bench_.stream());
    bench_.device().synchronize(bench_.stream());
    const auto wrong =
        std::ranges::count_if(words, [](uint32_t word) { return (word & kExponent) == kExponent; });
    if (wrong > 0) {
      throw Error(fmt::format("{} of {} results were not written or are no finite numbers", wrong,
                              words.size()),
                  what, "Its time says nothing; run gpu_kernels_tests --device cuda");
    }
  }
}

Activations make_activations(Bench& bench, Memory& memory, int64_t n, int64_t k) {
  Activations a = {memory.floats(n * k),
                   {memory.allocate<int8_t>(n * k), memory.allocate<float>(n * k / 32),
                    memory.allocate<float>(n * k / 16)},
                   memory.allocate<uint16_t>(n * k)};
  bench.kernels().quantize({a.x, n, k, a.xq}, bench.handle());
  bench.kernels().to_bfloat16({a.x, n * k, a.bfloat16s}, bench.handle());
  return a;
}

}  // namespace hearth::bench
