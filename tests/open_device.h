// The device that the cases of a program run on: the fake one with emulated threads, or a GPU with
// --device cuda. Where there is none, a program with this header runs no case.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/check.h"
#include "device/fake_device.h"
#include "gpu_kernels/emulation/simt_host.h"
#include "support.h"

namespace hearth::test {

inline const bool gate_is_set = [] {
  set_gate([] { return device() == "cuda" ? open_device(0).why_not : std::string(); });
  return true;
}();

// Of the fake device, `seed` orders streams and threads.
inline std::unique_ptr<Device> open_for_tests(uint64_t seed = 1) {
  if (device() == "fake") {
    emulated::set_thread_order(seed);
    return make_fake_device({.seed = seed});
  }
  HEARTH_CHECK(device() == "cuda");
  FoundDevice found = open_device(0);
  HEARTH_CHECK(found.device != nullptr);  // the gate has asked
  return std::move(found.device);
}

}  // namespace hearth::test
