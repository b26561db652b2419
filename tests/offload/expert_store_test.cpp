#include "offload/store/expert_store.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <random>
#include <set>
#include <vector>

#include "offload/expert_files.h"
#include "offload/io/fake_read_queue.h"
#include "offload/store/open_cache.h"

using namespace hearth;

namespace {

constexpr int32_t kLayers = 3, kExperts = 7, kUsed = 2, kTokensMax = 9;

struct CacheCase {
  int64_t slots = 4;
  int32_t read_ahead = 2;
};

// Files small enough for the page cache, in pieces small enough that there are several of each
// read.
ReaderOptions reader_options() {
  ReaderOptions options;
  options.depth = 4;
  options.piece_bytes = 4096;
  return options;
}

std::unique_ptr<Reader> make_reader(const test::ExpertFiles& files,
                                    std::unique_ptr<ReadQueue> queue) {
  std::vector<std::string> notes;
  std::vector<SourceFile> sources;
  for (const ModelFile& file : files.dir().files) {
    sources.emplace_back(file.path.string(), false, notes);
  }
  return std::make_unique<Reader>(std::move(queue), std::move(sources), reader_options());
}

std::unique_ptr<ReadQueue> fake_queue(const FakeReadFaults& faults = {}) {
  return std::make_unique<FakeReadQueue>(reader_options().depth, faults);
}

FakeReadFaults seeded(uint64_t seed) {
  FakeReadFaults faults;
  faults.seed = seed;
  return faults;
}

std::unique_ptr<ExpertCache> make_cache(const test::ExpertFiles& files, const CacheCase& how,
                                        std::unique_ptr<ReadQueue> queue) {
  const CacheShape shape{kLayers, kExperts};
  ExpertSlots slots(files.layers(), kExperts, how.slots, Topology::of_this_machine(),
                    NodeShares::even(1, 1));
  return std::make_unique<ExpertCache>(shape, std::move(slots),
                                       make_reader(files, std::move(queue)),
                                       make_reuse_policy(shape), how.read_ahead);
}

ExpertStore make_store(const test::ExpertFiles& files, std::unique_ptr<ExpertCache> cache) {
  return {files.layers(), kExperts, kUsed, kTokensMax, std::move(cache)};
}

std::vector<int32_t> random_picks(std::mt19937_64& random, int32_t n) {
  std::vector<int32_t> picks;
  for (int32_t t = 0; t < n; ++t) {
    const auto first = static_cast<int32_t>(random() % kExperts);
    const auto step = static_cast<int32_t>(1 + random() % (kExperts - 1));
    picks.push_back(first);
    picks.push_back((first + step) % kExperts);
  }
  return picks;
}

// Takes a layer's groups until there are no more; each must have its own weights, and tokens that
// nobody else had. False where not all came.
bool take_layer(ExpertStore& store, const test::ExpertFiles& files, int32_t layer, int32_t n,
                const std::vector<int32_t>& picks) {
  store.begin_layer(layer, {n, kUsed, picks.data()});
  std::set<int32_t> seen;
  for (auto groups = store.next(); !groups.empty(); groups = store.next()) {
    for (const ExpertGroup& group : groups) {
      CHECK(files.matches(layer, group.expert, group.weights));
      for (int32_t i = 0; i < group.n; ++i) {
        CHECK(picks[group.picks[i]] == group.expert);
        CHECK(group.rows[i] == group.picks[i] / kUsed);
        CHECK(seen.insert(group.first_slot + i).second);
      }
    }
  }
  return store.is_done() && std::ssize(seen) == n * kUsed;
}

}  // namespace

TEST_CASE("the store groups tokens by expert, rows ascending, every pick once") {
  std::vector<unsigned char> bytes(4 * 2 * 3 * sizeof(float));
  const Matrix stack{TensorType::kF32, 8, 3, bytes.data()};  // 4 experts of 2 rows
  ExpertStore store({{{stack, stack, stack}, {}}}, 4, 2, 3);
  const std::vector<int32_t> picks = {3, 1, 1, 0, 3, 1};  // three tokens, two picks each
  store.begin_layer(0, {3, 2, picks.data()});
  CHECK(!store.is_done());
  const std::span<const ExpertGroup> groups = store.next();
  REQUIRE(groups.size() == 3);
  CHECK(store.is_done());

  int32_t next_slot = 0;
  for (const ExpertGroup& group : groups) {
    CHECK(group.first_slot == next_slot);
    CHECK(group.weights.gate.rows == 2);
    CHECK(group.weights.gate.data == bytes.data() + group.expert * 2 * 3 * sizeof(float));
    for (int32_t i = 0; i < group.n; ++i) {
      CHECK(picks[group.picks[i]] == group.expert);
      CHECK(group.rows[i] == group.picks[i] / 2);
      if (i > 0) CHECK(group.rows[i] > group.rows[i - 1]);
    }
    next_slot += group.n;
  }
  CHECK(next_slot == 6);
  CHECK(groups[1].expert == 1);
  CHECK(groups[1].n == 3);
  CHECK(store.next().empty());
}

TEST_CASE("a cache is loaded before the first layer, and its figures begin after that") {
  const test::ExpertFiles files(kLayers, kExperts, 2, 3);
  for (const int32_t read_ahead : {1, 5}) {
    auto cache = make_cache(files, {6, read_ahead}, fake_queue(seeded(9)));
    const std::vector<int32_t> keys = {20, 3, 8, 7, 0};
    std::vector<int64_t> loaded;
    int64_t whole = 0;
    CHECK(!cache->load(keys, [&](int64_t done, int64_t total) {
      loaded.push_back(done);
      whole = total;
    }));
    CHECK(whole == 5 * cache->bytes() / 6);
    CHECK(loaded.back() == whole);
    CHECK(std::ranges::is_sorted(loaded));
    for (int32_t key = 0; key < kLayers * kExperts; ++key) {
      const bool is_loaded = std::ranges::find(keys, key) != keys.end();
      CHECK(cache->is_absent(key / kExperts, key % kExperts) == !is_loaded);
    }
    CHECK(cache->stats().reads.bytes == 0);
    CHECK(cache->stats().guessed == 0);
    ExpertCache& loaded_cache = *cache;
    ExpertStore store = make_store(files, std::move(cache));
    CHECK(take_layer(store, files, 0, 1, {3, 0}));
    CHECK(loaded_cache.stats().hits == 2);
    // They give way like all others.
    std::mt19937_64 random(read_ahead);
    for (int step = 0; step < 60; ++step) {
      CHECK(take_layer(store, files, step % kLayers, 9, random_picks(random, 9)));
    }
  }
}

TEST_CASE("what can't be loaded is told, and the cache goes on") {
  const test::ExpertFiles files(kLayers, kExperts, 1, 4);
  FakeReadFaults faults = seeded(5);
  faults.error = 0.2;
  auto cache = make_cache(files, {12, 4}, fake_queue(faults));
  const std::vector<int32_t> keys = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const auto failure = cache->load(keys, nullptr);
  REQUIRE(failure);
  CHECK(failure->error != 0);
  CHECK(cache->is_idle());
  CHECK(!cache->take_failure());
}

TEST_CASE("experts come from their files through any number of slots, expected or not") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    std::mt19937_64 random(seed);
    const test::ExpertFiles files(kLayers, kExperts, 1 + static_cast<int>(seed % 3), seed);
    CacheCase how;
    how.slots = 1 + static_cast<int64_t>(random() % (kLayers * kExperts));
    how.read_ahead = 1 + static_cast<int32_t>(random() % 12);
    std::unique_ptr<ReadQueue> queue =
        seed % 3 == 0 ? open_read_threads(reader_options().depth) : fake_queue(seeded(seed));
    ExpertStore store = make_store(files, make_cache(files, how, std::move(queue)));
    CAPTURE(seed);
    for (int token = 0; token < 20; ++token) {
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        const auto n = static_cast<int32_t>(1 + random() % kTokensMax);
        const std::vector<int32_t> picks = random_picks(random, n);
        for (uint64_t guesses = random() % 6; guesses > 0 && layer + 1 < kLayers; --guesses) {
          store.cache()->expect(layer + 1, static_cast<int32_t>(random() % kExperts));
        }
        CHECK(take_layer(store, files, layer, n, picks));
      }
    }
  }
}

TEST_CASE("what is resident is not read again, and what is expected is there in time") {
  const test::ExpertFiles files(kLayers, kExperts, 1, 5);
  CacheCase how;
  how.slots = kLayers * kExperts;
  ExpertStore store = make_store(files, make_cache(files, how, fake_queue()));
  const std::vector<int32_t> picks = {0, 1, 2, 3};
  REQUIRE(take_layer(store, files, 0, 2, picks));
  CHECK(store.cache()->stats().uses == 4);
  CHECK(store.cache()->stats().hits == 0);
  CHECK(store.cache()->stats().reads.requests == 12);
  store.cache()->clear_stats();
  REQUIRE(take_layer(store, files, 0, 2, picks));
  CHECK(store.cache()->stats().hits == 4);
  CHECK(store.cache()->stats().reads.requests == 0);

  store.cache()->clear_stats();
  store.cache()->expect(1, 4);
  store.cache()->expect(1, 5);
  store.cache()->poll();
  while (store.cache()->wait()) {
  }
  REQUIRE(take_layer(store, files, 1, 1, {4, 6}));
  CHECK(store.cache()->stats().guessed == 2);
  CHECK(store.cache()->stats().foreseen == 1);
  CHECK(store.cache()->stats().hits == 0);
  REQUIRE(take_layer(store, files, 1, 1, {4, 5}));
  CHECK(store.cache()->stats().hits == 2);  // the wrong guess stays as long as there is room
}

TEST_CASE("what is used often stays, what was used once goes") {
  const test::ExpertFiles files(1, kExperts, 1, 6);
  const CacheShape shape{1, kExperts};
  ExpertSlots slots(files.layers(), kExperts, 3, Topology::of_this_machine(),
                    NodeShares::even(1, 1));
  ExpertStore store =
      make_store(files, std::make_unique<ExpertCache>(shape, std::move(slots),
                                                      make_reader(files, fake_queue()),
                                                      make_reuse_policy(shape), 2));
  int64_t hits_of_one = 0;
  for (int32_t i = 0; i < 60; ++i) {
    store.cache()->clear_stats();
    REQUIRE(take_layer(store, files, 0, 1, {0, 1 + i % 6}));
    hits_of_one += store.cache()->stats().hits > 0;
  }
  CHECK(hits_of_one >= 59);
}

TEST_CASE("a read that fails ends the step with its errno, and the next step goes on") {
  const test::ExpertFiles files(kLayers, kExperts, 1, 7);
  for (int64_t at = 0; at < 24; ++at) {
    FakeReadFaults faults;
    faults.script = {{at, -EIO}};
    ExpertStore store = make_store(files, make_cache(files, {}, fake_queue(faults)));
    int failures = 0;
    for (int token = 0; token < 6; ++token) {
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        if (take_layer(store, files, layer, 2, {0, 1, token, 6})) continue;
        REQUIRE(store.has_failed());
        const std::optional<ReadFailure> failure = store.take_failure();
        CHECK(failure->layer == layer);
        CHECK(failure->error == EIO);
        CHECK(!store.has_failed());
        store.abandon();
        ++failures;
        break;
      }
    }
    CHECK(failures <= 1);
    if (at < 12) CHECK(failures == 1);
  }
}

TEST_CASE("a thousand runs with faults: no hang, no wrong weight, and every failure is told") {
  const test::ExpertFiles files(kLayers, kExperts, 2, 8);
  int64_t failures = 0, layers = 0;
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    std::mt19937_64 random(seed);
    CacheCase how;
    how.slots = 2 + static_cast<int64_t>(random() % 12);
    how.read_ahead = 1 + static_cast<int32_t>(random() % 6);
    FakeReadFaults faults = seeded(seed);
    faults.error = 0.01;
    faults.shorter = faults.busy = faults.full = 0.1;
    faults.stall = 0.05;
    ExpertStore store = make_store(files, make_cache(files, how, fake_queue(faults)));
    CAPTURE(seed);
    for (int token = 0; token < 3; ++token) {
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        const std::vector<int32_t> picks = random_picks(random, 2);
        if (layer + 1 < kLayers) store.cache()->expect(layer + 1, picks[0]);
        ++layers;
        if (take_layer(store, files, layer, 2, picks)) continue;
        REQUIRE(store.take_failure()->error == EIO);
        store.abandon();
        ++failures;
        break;
      }
    }
  }
  CHECK(failures > 100);
  CHECK(layers - failures > 1000);
}

TEST_CASE("what is copied elsewhere stays through any steps, and its slot is free once it moved") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const test::ExpertFiles files(kLayers, kExperts, 2, seed);
    FakeReadFaults faults = seeded(seed);
    faults.error = seed % 2 == 0 ? 0.02 : 0;
    CacheCase how;
    how.slots = 2 + static_cast<int64_t>(seed % 11);
    ExpertStore store = make_store(files, make_cache(files, how, fake_queue(faults)));
    ExpertCache& cache = *store.cache();
    std::vector<int32_t> copied;  // keys
    for (int step = 0; step < 60; ++step) {
      const int32_t layer = step % kLayers;
      if (!take_layer(store, files, layer, 3, random_picks(random, 3))) {
        REQUIRE(store.take_failure()->error == EIO);
        store.abandon();
      }
      for (const int32_t key : copied) {
        const int32_t l = key / kExperts, e = key % kExperts;
        REQUIRE(cache.find(l, e));
        CHECK(files.matches(l, e, *cache.find(l, e)));
      }
      for (int32_t e = 0; e < kExperts && std::ssize(copied) < cache.most_copied(); ++e) {
        const int32_t key = layer * kExperts + e;
        if (!cache.is_resident(layer, e) || std::ranges::count(copied, key) > 0) continue;
        cache.begin_copy(layer, e);
        copied.push_back(key);
      }
      if (copied.empty() || random() % 3 == 0) continue;
      const int32_t l = copied.back() / kExperts, e = copied.back() % kExperts;
      const bool moved = random() % 2 == 0;
      cache.end_copy(l, e, moved);
      CHECK(cache.is_absent(l, e) == moved);
      copied.pop_back();
    }
  }
}

TEST_CASE("what is lent comes from the disk behind the layer's own, and is held") {
  const test::ExpertFiles files(kLayers, kExperts, 1, 11);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    ExpertStore store = make_store(files, make_cache(files, {6, 2}, fake_queue(seeded(seed))));
    const std::vector<int32_t> picks = {0, 1, 2, -1}, lent = {4, 5, 6};
    CHECK(store.most_lent() == 3);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      store.begin_layer(layer, {2, kUsed, picks.data(), lent});
      int32_t given = 0;
      for (auto groups = store.next(); !groups.empty(); groups = store.next()) {
        given += static_cast<int32_t>(groups.size());
      }
      CHECK(given == 3);
      const auto is_there = [&](int32_t e) { return store.is_at_hand(layer, e); };
      while (!std::ranges::all_of(lent, is_there)) REQUIRE(store.wait());
      for (const int32_t e : lent) CHECK(files.matches(layer, e, store.lent(layer, e)));
      CHECK(!store.wait());
    }
  }
}

TEST_CASE("a model file that shrinks or vanishes under the cache") {
  const test::ExpertFiles files(kLayers, kExperts, 1, 9);
  OpenCache open = open_expert_cache(files.dir(), files.layers(),
                                     {.experts = kExperts, .slots = 4, .read_ahead = 2},
                                     Topology::of_this_machine());
  ExpertStore store = make_store(files, std::move(open.cache));
  REQUIRE(take_layer(store, files, 0, 1, {0, 1}));
  const std::filesystem::path path = files.dir().files[0].path;
  std::filesystem::resize_file(path, 8192);
  CHECK(!take_layer(store, files, 2, 1, {5, 6}));
  CHECK(store.take_failure()->error == ENODATA);
  store.abandon();
  // What has no name any more is still there while it is open.
  std::filesystem::remove(path);
  CHECK(take_layer(store, files, 0, 1, {0, 1}));
}
