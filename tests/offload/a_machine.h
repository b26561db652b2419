// A made-up machine with something in every field.
#pragma once

#include "offload/machine/machine.h"

namespace hearth::test {

inline Machine a_machine() {
  Machine machine;
  machine.name = "two sockets, one GPU \"quoted\", Größe";
  machine.cpu = {
      .name = "Some CPU",
      .packages = 2,
      .cores = 16,
      .threads = 32,
      .team = 16,
      .l2_bytes = 1 << 20,
      .l3_bytes = 64 << 20,
      .loop_us = 2.5,
      .features = {"avx2", "avx512f"},
      .isas = {{"avx512", 3000, 900, 950, {{"MXFP4", 80.1, {{1, 500}, {4, 800}, {64, 2000}}}}},
               {"avx2", 1500, 500, 550, {}}}};
  machine.cpu.isas[0].formats.push_back({"Q4_K interleaved", 82, {{1, 600}}});
  machine.read_gb_s = 0.1 + 0.2;  // no short decimal number
  machine.nodes = {{int64_t{64} << 30, 8, 90, 70, {90, 40}},
                   {int64_t{64} << 30, 8, 91, 71, {41, 91}}};
  machine.pci = {{"0000:00:01.0", "a bridge", "bridge", "", 0, 0},
                 {"0000:01:00.0", "a GPU", "gpu", "0000:00:01.0", 63.0, 1}};
  machine.gpus = {{.name = "a GPU",
                   .memory_bytes = int64_t{32} << 30,
                   .processors = 170,
                   .clock_ghz = 2.41,
                   .read_gb_s = 1700,
                   .matmul_gflop_s = 2e5,
                   .to_gpu_gb_s = 52,
                   .to_host_gb_s = 51,
                   .to_gpu_beside_cpu_gb_s = 40,
                   .cpu_read_beside_link_gb_s = 60,
                   .launch_us = 3,
                   .sync_us = 9,
                   .node = 1}};
  machine.disks = {{.name = "a disk",
                    .capacity_bytes = 2'000'000'000'000,
                    .rates = {{4096, 1, 0.05, 80}, {4096, 32, 1.5, 90}, {1 << 20, 1, 3, 300}},
                    .node = 1}};
  machine.assumed = {{"/gpus/0", "the maker's figures, " + std::string(200, '.')},
                     {"/disks/0/rates/1/read_gb_s", "a guess"}};
  return machine;
}

}  // namespace hearth::test
