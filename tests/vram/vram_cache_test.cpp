// The tier behind a disk cache: experts come to the fake device out of the cache's slots, which a
// fake queue fills late, in another order and not always.
#include <doctest/doctest.h>

#include <cerrno>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "device/fake_device.h"
#include "offload/expert_files.h"
#include "offload/io/fake_read_queue.h"
#include "offload/store/expert_store.h"
#include "vram/reading.h"

using namespace hearth;
using namespace hearth::test;

namespace {

constexpr int32_t kLayers = 4, kExperts = 12, kUsed = 2;

class DiskExperts : public ExpertFiles {
 public:
  explicit DiskExperts(uint64_t seed) : ExpertFiles(kLayers, kExperts, 2, seed) {}
  bool is_at(const ExpertTables& tables, int32_t layer, int32_t expert) const {
    const auto part = [&](int p) {
      return Matrix{tables[p].type, tables[p].rows, tables[p].cols, tables[p].data[expert]};
    };
    return tables[0].data[expert] != nullptr && matches(layer, expert, {part(0), part(1), part(2)});
  }
};

std::unique_ptr<ExpertCache> make_cache(const ExpertFiles& files, int64_t slots,
                                        const FakeReadFaults& faults, int32_t read_ahead = 3) {
  ReaderOptions options;
  options.depth = 4;
  options.piece_bytes = 4096;
  std::vector<std::string> notes;
  std::vector<SourceFile> sources;
  for (const ModelFile& file : files.dir().files) {
    sources.emplace_back(file.path.string(), false, notes);
  }
  auto reader = std::make_unique<Reader>(std::make_unique<FakeReadQueue>(options.depth, faults),
                                         std::move(sources), options);
  const CacheShape shape{kLayers, kExperts};
  return std::make_unique<ExpertCache>(
      shape,
      ExpertSlots(files.layers(), kExperts, slots, Topology::of_this_machine(),
                  NodeShares::even(1, 1)),
      std::move(reader), make_reuse_policy(shape), read_ahead);
}

FakeReadFaults seeded(uint64_t seed) {
  FakeReadFaults faults;
  faults.seed = seed;
  return faults;
}

// A model's steps as far as experts go: the tier, and a store for what it doesn't hold.
struct Steps {
  Steps(const DiskExperts& from, uint64_t seed, int64_t slots, const FakeReadFaults& faults,
        const std::vector<int32_t>& held)
      : files(from),
        device(make_fake_device({.seed = seed})),
        store(files.layers(), kExperts, kUsed, 8, make_cache(files, slots, faults)),
        pinned(device->pin(cache().memory().data(), cache().memory().size())),
        tier(*device, files.layers(), kExperts, held,
             {.admissions = 3, .slab_bytes = 1, .cache = &cache()}),
        compute(device->create_stream()),
        reading(files, tier) {}

  ExpertCache& cache() { return *store.cache(); }

  // False where a read failed, and the step ended there.
  bool run(int32_t centre, std::mt19937_64& random) {
    tier.begin_step(compute);
    reading.enqueue(compute);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      std::vector<int32_t> picks = picks_near(centre + layer, kExperts, random);
      tier.use(layer, 1, kUsed, picks.data());
      for (int32_t& pick : picks) pick = tier.holds(layer, pick) ? -1 : pick;
      store.begin_layer(layer, {1, kUsed, picks.data()});
      for (auto groups = store.next(); !groups.empty(); groups = store.next()) {
        for (const ExpertGroup& group : groups) {
          CHECK(files.matches(layer, group.expert, group.weights));
        }
      }
      if (!store.is_done()) {
        CHECK(store.take_failure()->error == EIO);
        store.abandon();
        return false;
      }
    }
    tier.end_step();
    return true;
  }

  int32_t twice_there() {
    int32_t count = 0;
    for (int32_t l = 0; l < kLayers; ++l) {
      for (int32_t e = 0; e < kExperts; ++e) {
        count += tier.holds(l, e) && cache().is_resident(l, e);
      }
    }
    return count;
  }

  const DiskExperts& files;
  const std::unique_ptr<Device> device;
  ExpertStore store;
  const Pinning pinned;
  VramTier tier;
  const Stream compute;
  Reading<DiskExperts> reading;
};

}  // namespace

TEST_CASE("the first experts come through any number of slots, and need none of them afterwards") {
  const std::vector<int32_t> held = {5, 0, 12, 3};
  for (const int64_t slots : {1, 2, 3, 7, 40}) {
    CAPTURE(slots);
    const DiskExperts files(slots);
    Steps steps(files, slots, slots, seeded(slots), held);
    std::vector<int64_t> loaded;
    int64_t whole = 0;
    REQUIRE(!steps.tier.load([&](int64_t done, int64_t total) {
      loaded.push_back(done);
      whole = total;
    }));
    CHECK(loaded.size() == 20);
    CHECK(loaded.back() == whole);
    CHECK(std::ranges::is_sorted(loaded));
    for (int32_t l = 0; l < kLayers; ++l) {
      for (int32_t e = 0; e < kExperts; ++e) {
        CHECK(steps.tier.holds(l, e) == (e < held[l]));
        CHECK(steps.cache().is_absent(l, e));
        if (e < held[l]) CHECK(files.is_at(tables_of(steps.tier, l), l, e));
      }
    }
    CHECK(counts(*steps.device).unpinned_copies == 0);
    CHECK(steps.cache().stats().reads.bytes == 0);  // figures are of what follows
    // All slots are there again.
    std::vector<int32_t> others;
    for (int32_t key = kExperts; std::ssize(others) < std::min<int64_t>(slots, 12); ++key) {
      others.push_back(key);
    }
    CHECK(!steps.cache().load(others, nullptr));
  }
}

TEST_CASE("a first expert that can't be read is told, and nothing is left under way") {
  const DiskExperts files(3);
  for (int64_t at = 0; at < 36; ++at) {
    CAPTURE(at);
    FakeReadFaults faults = seeded(at + 1);
    faults.script = {{at, -EIO}};
    Steps steps(files, 1, 5, faults, {3, 3, 3, 3});
    const auto failure = steps.tier.load(nullptr);
    REQUIRE(failure);
    CHECK(failure->error == EIO);
    CHECK(!files.dir().files[failure->file].path.empty());
    CHECK(steps.cache().is_idle());
    CHECK(!steps.cache().has_failed());
    // The cache goes on with all of its slots.
    const std::vector<int32_t> picks = {11, 10, 9, 8, 7, 6};
    steps.store.begin_layer(3, {3, kUsed, picks.data()});
    size_t given = 0;
    for (auto groups = steps.store.next(); !groups.empty(); groups = steps.store.next()) {
      given += groups.size();
    }
    CHECK(given == picks.size());
  }
}

TEST_CASE("experts follow the text out of the cache, each in one place, and never unpinned") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    const DiskExperts files(seed);
    // Few slots lend none for copies.
    const int64_t slots = seed % 5 == 0 ? 3 : 6 + static_cast<int64_t>(seed % 4) * 5;
    Steps steps(files, seed, slots, seeded(seed), {3, 2, 0, 4});
    REQUIRE(!steps.tier.load(nullptr));
    std::mt19937_64 random(seed);
    for (int step = 0; step < 200; ++step) {
      CHECK(steps.run(step / 40 * 5, random));
      if (random() % 3 == 0) steps.device->synchronize(steps.compute);  // else it runs ahead
      if (random() % 20 == 0) steps.tier.shrink(0, steps.compute);
      CHECK(steps.twice_there() == 0);
    }
    steps.device->synchronize();
    CHECK(steps.reading.steps() == 200);
    CHECK(steps.reading.wrong() == 0);
    CHECK((steps.tier.stats().admissions > 0) == (slots > 3));
    CHECK(counts(*steps.device).unpinned_copies == 0);
  }
}

TEST_CASE("what is read from the disk in a step is copied in the next, and not read again") {
  const DiskExperts files(4);
  Steps steps(files, 1, 16, seeded(4), {4, 4, 4, 4});
  REQUIRE(!steps.tier.load(nullptr));
  std::mt19937_64 random(1);
  for (int step = 0; step < 60; ++step) {
    CHECK(steps.run(4, random));
    steps.device->synchronize();
  }
  for (int32_t l = 0; l < kLayers; ++l) {
    for (int32_t e = 4 + l; e < 8 + l; ++e) CHECK(steps.tier.holds(l, e));
  }
  CHECK(steps.tier.stats().admissions == 4 * kLayers);
  CHECK(steps.cache().stats().reads.requests == 4 * kLayers * kExpertParts);
}

TEST_CASE("reads that fail end their step alone while copies are under way") {
  int64_t failures = 0, done = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    const DiskExperts files(seed);
    FakeReadFaults faults = seeded(seed);
    faults.error = 0.02;
    faults.shorter = faults.busy = faults.full = 0.1;
    Steps steps(files, seed, 4 + static_cast<int64_t>(seed % 3) * 4, faults, {3, 2, 0, 4});
    if (steps.tier.load(nullptr)) continue;
    std::mt19937_64 random(seed);
    for (int step = 0; step < 100; ++step) {
      const bool whole = steps.run(step / 30 * 5, random);
      (whole ? done : failures) += 1;
      if (random() % 2 == 0) steps.device->synchronize(steps.compute);
    }
    steps.device->synchronize();
    CHECK(steps.reading.wrong() == 0);
  }
  CHECK(failures > 30);
  CHECK(done > 300);
}
