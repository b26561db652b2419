#include "gpu_kernels/bench/tables.h"

namespace hearth::bench {
namespace {

Row between_host_and_device(Bench& bench, bool to_device) {
  Device& device = bench.device();
  const auto bytes = static_cast<size_t>(bench.sizes().host_copy_bytes);
  Memory memory(bench);
  auto* there = memory.allocate<unsigned char>(bench.sizes().host_copy_bytes);
  const PinnedBuffer here = device.allocate_pinned(bytes);
  const double us = bench.us([&](int64_t) {
    if (to_device) {
      device.copy_to_device(there, here.data(), bytes, bench.stream());
    } else {
      device.copy_to_host(here.data(), there, bytes, bench.stream());
    }
  });
  return {to_device ? "copy from pinned host memory" : "copy to pinned host memory",
          "",
          0,
          {{"us", us}, {"gb_s", static_cast<double>(bytes) / us * 1e-3}}};
}

// A kernel, its results to the host, a wait, other inputs from there: what every layer costs at
// least whose experts the host computes.
Row round_trip(Bench& bench) {
  Device& device = bench.device();
  const auto bytes = static_cast<size_t>(bench.sizes().round_trip_bytes);
  const int64_t floats = bench.sizes().round_trip_bytes / 4;
  Memory memory(bench);
  const GpuAddParams add = {memory.floats(floats), floats, memory.floats(floats)};
  const PinnedBuffer here = device.allocate_pinned(bytes);
  const double us = bench.us([&](int64_t) {
    bench.kernels().add(add, bench.handle());
    device.copy_to_host(here.data(), add.out, bytes, bench.stream());
    device.synchronize(bench.stream());
    device.copy_to_device(add.out, here.data(), bytes, bench.stream());
  });
  return {"round trip to the host", "", 0, {{"us", us}}};
}

}  // namespace

Table peaks(Bench& bench) {
  const auto bytes = static_cast<double>(bench.sizes().device_copy_bytes);
  const double gb_s = bench.copy_gb_s();
  Table table{"peaks", {}, {}};
  table.rows.push_back({"copy on the device, read and written",
                        "",
                        0,
                        {{"us", 2 * bytes / gb_s * 1e-3}, {"gb_s", gb_s}}});
  table.rows.push_back(between_host_and_device(bench, true));
  table.rows.push_back(between_host_and_device(bench, false));
  table.rows.push_back({"launch of the least kernel", "", 0, {{"us", bench.launch_floor_us()}}});
  table.rows.push_back(round_trip(bench));
  return table;
}

}  // namespace hearth::bench
