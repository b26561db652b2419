#include "offload/vram/vram_tier.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <ranges>
#include <utility>

#include "base/check.h"

namespace hearth {
namespace {

// Half-lives of 16 and 256 tokens.
constexpr UseMean kMeans[] = {{0.957603f, 0.5f}, {0.997296f, 0.5f}};
// Tokens of a step that the chances learn from, the last ones: what came before hardly weighs.
constexpr int32_t kTokensLearned = 512;
// Experts on their way when the first ones are brought, from the disk and to the device together.
constexpr int64_t kLoading = 32;

int64_t table_bytes(size_t layers, int32_t experts) {
  return static_cast<int64_t>(layers) * kExpertParts * experts * int64_t{sizeof(void*)};
}

bool in_memory(const LayerExperts& layer) {
  return std::ranges::all_of(expert_parts(layer.stacks),
                             [](const Matrix& stack) { return stack.data != nullptr; });
}

// Each of them holds a slot of the cache's.
int32_t admissions_at_once(const VramTierOptions& options) {
  if (options.cache == nullptr) return options.admissions;
  return static_cast<int32_t>(std::min<int64_t>(options.admissions, options.cache->most_copied()));
}

}  // namespace

int64_t vram_tier_bytes(std::span<const LayerExperts> layers, int32_t experts,
                        std::span<const int32_t> slots_per_layer) {
  return VramSlotGroups(layers, experts, slots_per_layer).bytes() +
         table_bytes(layers.size(), experts);
}

VramTier::VramTier(Device& device, std::vector<LayerExperts> layers, int32_t experts,
                   std::span<const int32_t> slots_per_layer, const VramTierOptions& options)
    : device_(device),
      layers_(std::move(layers)),
      shape_{static_cast<int32_t>(layers_.size()), experts},
      margin_(options.margin),
      cache_(options.cache),
      chances_(shape_, kMeans),
      told_(shape_.layers, 0),
      held_(shape_.pairs(), 0),
      coming_(shape_.pairs(), 0),
      held_in_layer_(shape_.layers, 0),
      slots_(device, VramSlotGroups(layers_, experts, slots_per_layer), options.slab_bytes),
      owners_(slots_.count(), kFree),
      host_tables_(device.allocate_pinned(table_bytes(layers_.size(), experts))),
      tables_(device.allocate(host_tables_.bytes())),
      published_(device.create_event()),
      exchanges_(admissions_at_once(options)),
      copies_(device.create_stream()) {
  for (const LayerExperts& layer : layers_) {
    admissible_.push_back(cache_ != nullptr || in_memory(layer));
  }
  for (std::vector<BestFew>* best : {&absent_, &present_}) {
    best->reserve(slots_.groups());
    for (int32_t g = 0; g < slots_.groups(); ++g) best->emplace_back(admissions_at_once(options));
  }
  for (Exchange& exchange : exchanges_) exchange.arrived = device.create_event();
  std::fill_n(host_tables_.as<const unsigned char*>(), shape_.pairs() * kExpertParts, nullptr);
  first_ = first_places(slots_per_layer, options.order);
  if (cache_ == nullptr) place_first();
}

std::vector<VramTier::Place> VramTier::first_places(std::span<const int32_t> slots_per_layer,
                                                    std::span<const int32_t> order) {
  HEARTH_CHECK(order.empty() || std::ssize(order) == shape_.pairs());
  std::vector<int32_t> next(slots_.groups());  // slot
  for (const VramSlots::Slab& slab : slots_.slabs() | std::views::reverse) {
    next[slab.group] = slab.first;
  }
  std::vector<Place> places;
  for (int32_t layer = 0; layer < shape_.layers; ++layer) {
    HEARTH_CHECK(slots_per_layer[layer] == 0 || admissible_[layer]);
    for (int32_t i = 0; i < slots_per_layer[layer]; ++i) {
      const int32_t key = key_of(layer, order.empty() ? i : order[key_of(layer, i)]);
      places.push_back({key, next[slots_.group_of_layer(layer)]++});
    }
  }
  return places;
}

// The copies are on their way, and nothing has read the tables yet.
void VramTier::place_first() {
  for (const auto& [key, slot] : first_) {
    HEARTH_CHECK(!held_[key]);
    if (cache_ == nullptr) copy_expert(key, slot);
    enter(key, slot);
  }
  first_.clear();
  publish(copies_);
  device_.synchronize(copies_);
}

// Those before `ended` are there, those before `copied` on their way to the device, those before
// `begun` on their way from the disk.
std::optional<ReadFailure> VramTier::load(const std::function<void(int64_t, int64_t)>& on_load) {
  const int64_t count = std::ssize(first_), most = std::min(cache_->slots(), kLoading);
  int64_t total = 0, done = 0;
  for (const Place& place : first_) total += expert_bytes(place.key);
  std::vector<Event> arrived(most);
  for (Event& event : arrived) event = device_.create_event();
  int64_t ended = 0, copied = 0, begun = 0;
  const auto end_first = [&](bool moved) { end_copy(first_[ended++].key, moved); };
  while (ended < count) {
    if (begun < count && begun - ended < most) {
      const int32_t key = first_[begun++].key;
      cache_->begin_copy(layer_of(key), key % shape_.experts);
      cache_->poll();
    } else if (copied < begun && (begun == count || begun - copied > most / 2)) {
      const auto& [key, slot] = first_[copied];
      if (!wait_for(key)) break;
      copy_expert(key, slot);
      device_.record(arrived[copied++ % most], copies_);
    } else {
      device_.synchronize(arrived[ended % most]);
      done += expert_bytes(first_[ended].key);
      end_first(true);
      if (on_load) on_load(done, total);
    }
  }
  device_.synchronize(copies_);
  cache_->abandon();
  while (cache_->wait()) {
  }
  while (ended < begun) end_first(false);
  cache_->clear_stats();
  if (cache_->has_failed()) return cache_->take_failure();
  place_first();
  return std::nullopt;
}

// Until it is in its slot of the cache; false where a read failed.
bool VramTier::wait_for(int32_t key) {
  while (!cache_->is_resident(layer_of(key), key % shape_.experts)) {
    if (cache_->has_failed() || !cache_->wait()) return false;
  }
  return true;
}

GpuExpertMatrices VramTier::matrices(int32_t layer, int part) const {
  const Matrix stack = expert_parts(layers_[layer].stacks)[part];
  return {stack.type, stack.rows / shape_.experts, stack.cols,
          tables_.as<const unsigned char*>() + entry_of(layer, part)};
}

int64_t VramTier::bytes() const { return slots_.bytes() + static_cast<int64_t>(tables_.bytes()); }

// ---- the tables ----

// Where it lies in the host's memory.
std::array<Matrix, kExpertParts> VramTier::source_of(int32_t key) const {
  const int32_t layer = layer_of(key), expert = key % shape_.experts;
  if (cache_ != nullptr) return expert_parts(*cache_->find(layer, expert));
  auto parts = expert_parts(layers_[layer].stacks);
  for (Matrix& part : parts) part = expert_slice(part, shape_.experts, expert);
  return parts;
}

void VramTier::copy_expert(int32_t key, int32_t slot) {
  const auto places = slots_.places(slot);
  const auto parts = source_of(key);
  const ExpertSizes& sizes = slots_.sizes(layer_of(key));
  for (int p = 0; p < kExpertParts; ++p) {
    device_.copy_to_device(places[p], parts[p].data, static_cast<size_t>(sizes[p]), copies_);
  }
}

// Of what the cache held for it.
void VramTier::end_copy(int32_t key, bool moved) noexcept {
  if (cache_ != nullptr) cache_->end_copy(layer_of(key), key % shape_.experts, moved);
}

int64_t VramTier::expert_bytes(int32_t key) const {
  const ExpertSizes& sizes = slots_.sizes(layer_of(key));
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

// In the host's tables, as leave(); nobody may be reading them.
void VramTier::enter(int32_t key, int32_t slot) {
  const int32_t layer = layer_of(key);
  const auto places = slots_.places(slot);
  for (int p = 0; p < kExpertParts; ++p) {
    host_tables_.as<const unsigned char*>()[entry_of(layer, p) + key % shape_.experts] = places[p];
  }
  owners_[slot] = key;
  held_[key] = 1;
  ++held_in_layer_[layer];
}

void VramTier::leave(int32_t key) {
  const int32_t layer = layer_of(key);
  for (int p = 0; p < kExpertParts; ++p) {
    host_tables_.as<const unsigned char*>()[entry_of(layer, p) + key % shape_.experts] = nullptr;
  }
  held_[key] = 0;
  --held_in_layer_[layer];
}

void VramTier::publish(const Stream& compute) {
  device_.copy_to_device(tables_.data(), host_tables_.data(), tables_.bytes(), compute);
  device_.record(published_, compute);
}

// ---- steps ----

void VramTier::begin_step(const Stream& compute) {
  using State = Exchange::State;
  if (!device_.done(published_)) return;  // the host's tables are still to be read: next time
  bool changed = false;
  for (Exchange& exchange : exchanges_) {
    if (exchange.state == State::kCopying && device_.done(exchange.arrived)) {
      enter(exchange.key, exchange.slot);
      end_copy(exchange.key, true);
      coming_[exchange.key] = 0;
      exchange.state = State::kIdle;
      changed = true;
    } else if (exchange.state == State::kChosen) {
      if (exchange.owner >= 0) leave(exchange.owner);
      changed = true;
    }
  }
  if (!changed) return;
  publish(compute);
  // From here on nothing in the stream reads the slots of those that left.
  device_.wait(copies_, published_);
  for (Exchange& exchange : exchanges_) {
    if (exchange.state != State::kChosen) continue;
    copy_expert(exchange.key, exchange.slot);
    device_.record(exchange.arrived, copies_);
    exchange.state = State::kCopying;
    ++stats_.admissions;
    stats_.copied_bytes += expert_bytes(exchange.key);
  }
}

void VramTier::use(int32_t layer, int32_t n, int32_t used, const int32_t* picks) noexcept {
  told_[layer] = 1;
  stats_.picks += int64_t{n} * used;
  for (int64_t i = 0; i < int64_t{n} * used; ++i) stats_.hits += holds(layer, picks[i]);
  for (int32_t t = std::max(n - kTokensLearned, 0); t < n; ++t) {
    chances_.begin_visit(layer);
    for (int32_t k = 0; k < used; ++k) chances_.use(key_of(layer, picks[t * used + k]));
  }
}

void VramTier::end_step() noexcept {
  const auto idle = [](const Exchange& exchange) {
    return exchange.state == Exchange::State::kIdle;
  };
  if (std::ranges::any_of(exchanges_, idle)) {
    rank();
    for (Exchange& exchange : exchanges_) {
      if (idle(exchange) && !choose(exchange)) break;
    }
  }
  std::ranges::fill(told_, uint8_t{0});
}

// The absent experts that may come and the slots that they may come to.
void VramTier::rank() {
  for (BestFew& best : absent_) best.clear();
  for (BestFew& best : present_) best.clear();
  for (int32_t layer = 0; layer < shape_.layers; ++layer) {
    if (!told_[layer] || !admissible_[layer]) continue;
    BestFew& absent = absent_[slots_.group_of_layer(layer)];
    for (int32_t key = key_of(layer, 0); key < key_of(layer + 1, 0); ++key) {
      if (chances_[key] <= margin_ || held_[key] || coming_[key]) continue;
      if (cache_ != nullptr && !cache_->is_resident(layer, key % shape_.experts)) continue;
      absent.offer(key, chances_[key]);
    }
  }
  for (int32_t slot = 0; slot < slots_.count(); ++slot) {
    const int32_t owner = owners_[slot];
    BestFew& present = present_[slots_.group_of_slot(slot)];
    if (owner == kFree) present.offer(slot, 0);
    if (owner >= 0 && told_[layer_of(owner)]) present.offer(slot, -chances_[owner]);
  }
}

// The pair of all groups with the most to gain; false where none is worth its copy.
bool VramTier::choose(Exchange& exchange) {
  float most = margin_;
  int32_t group = -1;
  for (int32_t g = 0; g < slots_.groups(); ++g) {
    if (absent_[g].empty() || present_[g].empty()) continue;
    const float gain = absent_[g].front().rank + present_[g].front().rank;
    if (gain <= most) continue;
    most = gain;
    group = g;
  }
  if (group < 0) return false;
  exchange.state = Exchange::State::kChosen;
  exchange.key = absent_[group].front().what;
  exchange.slot = present_[group].front().what;
  exchange.owner = owners_[exchange.slot];
  coming_[exchange.key] = 1;
  if (cache_ != nullptr) {
    cache_->begin_copy(layer_of(exchange.key), exchange.key % shape_.experts);
  }
  owners_[exchange.slot] = kTaken;
  absent_[group].pop();
  present_[group].pop();
  return true;
}

// ---- slabs ----

// Lets those arrive that are under way, and forgets those that were only chosen. The stream of
// copies waits for the tables, so that nobody reads the host's any more.
void VramTier::end_exchanges() {
  using State = Exchange::State;
  device_.synchronize(copies_);
  for (Exchange& exchange : exchanges_) {
    if (exchange.state == State::kIdle) continue;
    coming_[exchange.key] = 0;
    end_copy(exchange.key, exchange.state == State::kCopying);
    if (exchange.state == State::kCopying) {
      enter(exchange.key, exchange.slot);
    } else {
      owners_[exchange.slot] = exchange.owner;
    }
    exchange.state = State::kIdle;
  }
}

// A token. A layer that nobody told of may be one that the device has as a whole, with no need to
// tell the host: that is the last to be taken apart.
double VramTier::likely_uses(int32_t key) const { return chances_[key] > 0 ? chances_[key] : 1; }

// -1 where all are given back.
int32_t VramTier::least_likely_slab() const {
  int32_t found = -1;
  double least = std::numeric_limits<double>::infinity();
  for (int32_t s = 0; s < std::ssize(slots_.slabs()); ++s) {
    const VramSlots::Slab& slab = slots_.slabs()[s];
    if (owners_[slab.first] == kGivenBack) continue;
    double uses = 0;
    for (int32_t slot = slab.first; slot < slab.first + slab.slots; ++slot) {
      if (owners_[slot] >= 0) uses += likely_uses(owners_[slot]);
    }
    const double uses_per_byte = uses / static_cast<double>(slab.bytes);
    // The last of equals: each layer's first experts are its most popular ones.
    if (uses_per_byte > least) continue;
    least = uses_per_byte;
    found = s;
  }
  return found;
}

int64_t VramTier::shrink(int64_t bytes, const Stream& compute) {
  end_exchanges();
  std::vector<int32_t> leaving;
  int64_t freed = 0;
  while (freed < bytes) {
    const int32_t found = least_likely_slab();
    if (found < 0) break;
    const VramSlots::Slab& slab = slots_.slabs()[found];
    for (int32_t slot = slab.first; slot < slab.first + slab.slots; ++slot) {
      if (owners_[slot] >= 0) leave(owners_[slot]);
      owners_[slot] = kGivenBack;
    }
    freed += slab.bytes;
    leaving.push_back(found);
  }
  publish(compute);
  device_.synchronize(published_);
  for (const int32_t slab : leaving) slots_.give_back(slab);
  return freed;
}

int64_t VramTier::grow(int64_t bytes) {
  int64_t taken = 0;
  for (int32_t s = 0; s < std::ssize(slots_.slabs()); ++s) {
    const VramSlots::Slab& slab = slots_.slabs()[s];
    if (owners_[slab.first] != kGivenBack || slab.bytes > bytes - taken) continue;
    slots_.take(s);
    std::fill_n(owners_.begin() + slab.first, slab.slots, kFree);
    taken += slab.bytes;
  }
  return taken;
}

}  // namespace hearth
