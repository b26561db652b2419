// Machines and models for the planner's tests: small ones written out, and random ones.
#pragma once

#include <algorithm>
#include <random>

#include "offload/machine/machine.h"
#include "offload/plan/planner.h"

namespace hearth::test {

inline FormatRates rates_of(const char* format, double stream_gb_s, double gflop_s) {
  return {format, stream_gb_s, {{1, gflop_s}, {8, 3 * gflop_s}, {64, 5 * gflop_s}}};
}

// Round figures, no GPU, no disk.
inline Machine small_machine() {
  Machine machine;
  machine.name = "small machine";
  machine.cpu.cores = machine.cpu.threads = 8;
  machine.cpu.loop_us = 4;
  machine.cpu.isas = {{"avx512",
                       1000,
                       200,
                       200,
                       {rates_of("MXFP4", 80, 400), rates_of("Q8_0", 85, 300),
                        rates_of("F16", 88, 200), rates_of("F32", 90, 100)}}};
  machine.read_gb_s = 90;
  machine.nodes = {{int64_t{64} << 30, 8, 90, 70, {90}}};
  return machine;
}

inline Gpu small_gpu() {
  Gpu gpu;
  gpu.name = "small GPU";
  gpu.memory_bytes = int64_t{16} << 30;
  gpu.processors = 60;
  gpu.clock_ghz = 2;
  gpu.read_gb_s = 1000;
  gpu.matmul_gflop_s = 100000;
  gpu.to_gpu_gb_s = 50;
  gpu.to_host_gb_s = 50;
  gpu.to_gpu_beside_cpu_gb_s = 40;
  gpu.cpu_read_beside_link_gb_s = 50;
  gpu.launch_us = 2;
  gpu.sync_us = 10;
  return gpu;
}

inline Disk small_disk() {
  return {"small disk", int64_t{1} << 40, {{4096, 32, 2, 60}, {1 << 20, 32, 10, 3000}}, 0};
}

// A model of `layers` layers of `experts` experts of about a MiB each. Its memory costs are simple
// formulas.
inline ModelShape small_model(int32_t layers = 4, int32_t experts = 16, int64_t expert_kib = 1024) {
  ModelShape model;
  model.name = "small model";
  model.context = 1 << 20;
  model.dim = 512;
  model.vocab = 1000;
  model.streams = 4;
  model.heads = 8;
  model.head_dim = 128;
  model.window = 128;
  model.index_heads = 8;
  model.index_dim = 64;
  model.index_top_k = 512;
  model.experts = experts;
  model.experts_used = std::min(experts, 4);
  model.expert_dim = 512;
  model.kv_value_bytes = 2;
  const int64_t expert_bytes = expert_kib << 10;
  model.slot_bytes = expert_bytes + (24 << 10);  // blocks around three matrices
  static constexpr int32_t kRatios[] = {0, 4, 128};
  for (int32_t i = 0; i < layers; ++i) {
    LayerShape layer;
    layer.ratio = kRatios[i % 3];
    layer.hashed = i == 0;
    layer.dense = {{TensorType::kQ8_0, 4 << 20, (4 << 20) / 32 * 34}};
    layer.dense_bytes = layer.dense[0].bytes + 8192;
    layer.expert = {{TensorType::kMXFP4, expert_bytes / 17 * 32, expert_bytes}};
    layer.expert_bytes = expert_bytes;
    model.layers.push_back(layer);
  }
  model.head = {{TensorType::kQ8_0, 512000, 544000}};
  model.head_bytes = 546000;
  model.embedding_bytes = 544000;
  model.kv_bytes = [layers](int64_t context, int32_t chunk) {
    std::vector<KvBytes> bytes;
    for (int32_t i = 0; i < layers; ++i) {
      const int32_t ratio = kRatios[i % 3];
      bytes.push_back({(128 + chunk) * 256, ratio == 0 ? 0 : context / ratio * 256,
                       ratio == 4 ? context / 4 * 128 : 0, ratio * 1024});
    }
    return bytes;
  };
  model.scratch_bytes = [](int64_t context, int32_t chunk, int32_t threads) {
    return int64_t{chunk} * 40000 + context * 4 + threads * 4096;
  };
  return model;
}

class RandomCases {
 public:
  explicit RandomCases(uint64_t seed) : random_(seed) {}

  int64_t whole(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(random_() % static_cast<uint64_t>(most - least + 1));
  }
  double real(double least, double most) {
    return least + (most - least) * static_cast<double>(random_() >> 11) * 0x1p-53;
  }

  Machine machine() {
    Machine machine = small_machine();
    machine.cpu.cores = static_cast<int32_t>(whole(1, 128));
    machine.cpu.loop_us = real(0, 50);
    machine.nodes.clear();
    const int64_t nodes = whole(1, 4);
    int32_t cores = machine.cpu.cores;
    for (int64_t i = 0; i < nodes; ++i) {
      const auto own = static_cast<int32_t>(i + 1 < nodes ? whole(0, cores) : cores);
      cores -= own;
      machine.nodes.push_back({whole(1, 1 << 20) << whole(10, 18), own, 1, real(1, 400), {}});
    }
    machine.read_gb_s = real(1, 600);
    for (FormatRates& format : machine.cpu.isas[0].formats) {
      format.stream_gb_s = machine.read_gb_s * real(0.3, 1);
      for (MatmulRate& rate : format.matmul) rate.gflop_s *= real(0.05, 40);
    }
    for (int64_t i = whole(0, 2); i > 0; --i) {
      Gpu gpu = small_gpu();
      gpu.memory_bytes = whole(1, 1 << 18) << whole(10, 18);
      gpu.to_gpu_gb_s = real(0.5, 100);
      gpu.to_gpu_beside_cpu_gb_s = gpu.to_gpu_gb_s * real(0.2, 1);
      gpu.cpu_read_beside_link_gb_s = machine.read_gb_s * real(0.2, 1);
      gpu.sync_us = real(0, 100);
      machine.gpus.push_back(gpu);
    }
    for (int64_t i = whole(0, 2); i > 0; --i) {
      Disk disk = small_disk();
      for (DiskRate& rate : disk.rates) rate.read_gb_s *= real(0.01, 2);
      machine.disks.push_back(disk);
    }
    return machine;
  }

  ModelShape model() {
    return small_model(static_cast<int32_t>(whole(1, 61)), static_cast<int32_t>(whole(1, 384)),
                       whole(17, 40000) / 17 * 17);
  }

  // A few experts of each layer have most of the picks, as in real texts, and some none.
  RecordedUse recorded(const ModelShape& model) {
    RecordedUse use;
    use.source = "random.trace";
    use.shape = model.routing();
    use.tokens = whole(1, 100000);
    for (int64_t key = 0; key < model.expert_count(); ++key) {
      use.picks.push_back(whole(0, whole(0, 1) == 0 ? 3 : use.tokens));
    }
    const double low = real(0, 1), likely = real(low, 1), high = real(likely, 1);
    use.hits = HitCurve(std::vector<HitPoint>{{real(0.01, 0.99), {low, likely, high}}});
    return use;
  }

  PlanRequest request() {
    PlanRequest request;
    request.work.context = whole(1, int64_t{1} << whole(1, 20));
    request.work.depth = whole(0, request.work.context);
    request.work.prompt = whole(0, request.work.context);
    request.work.answer = whole(0, 2000);
    request.work.parallel = static_cast<int32_t>(whole(1, 16));
    request.use_gpu = whole(0, 3) > 0;
    if (whole(0, 3) == 0) request.ram_budget = whole(0, int64_t{1} << 38);
    if (whole(0, 3) == 0) request.gpu_budget = whole(0, int64_t{1} << 35);
    return request;
  }

 private:
  std::mt19937_64 random_;
};

inline PlanRequest request_of(int64_t context = 4096) {
  PlanRequest request;
  request.work = {.context = context, .depth = context, .prompt = context, .answer = 256};
  return request;
}

}  // namespace hearth::test
