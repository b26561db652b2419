// From a disk into a GPU's memory: on the fake device, or on a GPU with --device cuda.
#include "offload/machine/gpu/measure_disk_link.h"

#include <doctest/doctest.h>

#include <cmath>

#include "base/error.h"
#include "device/fake_device.h"
#include "open_device.h"
#include "support.h"

using namespace hearth;

namespace {

constexpr DiskLinkProbe kSmall{.file_bytes = 64 << 20,
                               .write_seconds = 0,
                               .block_bytes = 64 << 10,
                               .blocks = 5,
                               .seconds = 0.01};

}  // namespace

TEST_CASE("the disk, the link and both together have rates, over pinned memory alone") {
  const test::TemporaryFolder folder;
  const bool fake = test::device() == "fake";
  const auto device = test::open_for_tests();
  const int64_t free_bytes = device->memory().free_bytes;
  const DiskLinkRates rates =
      measure_disk_link(*device, folder.path(), fake ? kSmall : DiskLinkProbe());
  for (const double rate : {rates.disk, rates.link, rates.both}) {
    CHECK(rate > 0);
    CHECK(std::isfinite(rate));
  }
  CHECK(device->memory().free_bytes == free_bytes);
  CHECK(std::filesystem::is_empty(folder.path()));
  MESSAGE("GB/s: disk ", rates.disk, ", link ", rates.link, ", both ", rates.both);
  if (!fake) return;
  CHECK(counts(*device).pinned_bytes == 0);
  CHECK(counts(*device).unpinned_copies == 1);  // the one that looks at what arrived
}

TEST_CASE("no time is lost where each block goes its way once") {
  const test::TemporaryFolder folder;
  DiskLinkProbe probe = kSmall;
  probe.seconds = 0;
  for (const int32_t blocks : {1, 2, 40}) {
    probe.blocks = blocks;
    const auto device = make_fake_device({.seed = static_cast<uint64_t>(blocks)});
    CHECK(measure_disk_link(*device, folder.path(), probe).both > 0);
  }
}

TEST_CASE("what keeps the way from being measured is said, and nothing stays taken") {
  const test::TemporaryFolder folder;
  const auto unpinned = make_fake_device({.pin_bytes = 1000});
  CHECK_THROWS_WITH_AS(measure_disk_link(*unpinned, folder.path(), kSmall),
                       doctest::Contains("memory can't be pinned"), Error);
  const auto small = make_fake_device({.memory_bytes = 100 << 10});
  CHECK_THROWS_AS(measure_disk_link(*small, folder.path(), kSmall), Error);
  CHECK(counts(*small).pinned_bytes == 0);
  CHECK(small->memory().free_bytes == 100 << 10);
  CHECK_THROWS_WITH_AS(measure_disk_link(*small, folder.path() / "none", kSmall),
                       doctest::Contains("is no folder"), Error);
}
