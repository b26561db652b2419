#include "model/device/expert_stream.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace hearth {
namespace {

using Pointer = const unsigned char*;

// Pointers of the tables where every expert is sent.
int64_t table_entries(int32_t experts, const Limits& limits) {
  HEARTH_CHECK(limits.experts_sent >= 2 && limits.experts_sent % 2 == 0);
  const int64_t round = limits.experts_sent / 2;
  const int64_t rounds = (experts + round - 1) / round;
  return (1 + rounds * kExpertParts) * experts;
}

VramSlotGroups without_slots(std::span<const LayerExperts> layers, int32_t experts) {
  return VramSlotGroups(layers, experts, std::vector<int32_t>(layers.size(), 0));
}

int64_t largest_slot(const VramSlotGroups& groups) {
  return std::ranges::max(groups.groups, {}, &VramSlotGroups::Group::slot_bytes).slot_bytes;
}

ExpertSize size_of(const LayerExperts& layer, int32_t experts) {
  ExpertSize size{0, 0};
  for (const Matrix& stack : expert_parts(layer.stacks)) {
    size.bytes += stack.rows / experts * row_bytes(stack.type, stack.cols);
    size.weights += stack.rows / experts * stack.cols;
  }
  return size;
}

// Both places, as they are taken from a slab.
struct Places {
  Places(Slab& slab, int64_t slot_bytes, int32_t experts, const Limits& limits)
      : slots(slab.take<unsigned char>(limits.experts_sent * slot_bytes)),
        tables(slab.take<Pointer>(table_entries(experts, limits))) {}
  unsigned char* slots;
  Pointer* tables;
};

}  // namespace

int64_t expert_stream_bytes(std::span<const LayerExperts> layers, int32_t experts,
                            const Limits& limits) {
  Slab counting;
  Places(counting, largest_slot(without_slots(layers, experts)), experts, limits);
  return counting.bytes();
}

int64_t expert_stream_pinned_bytes(int32_t experts, const Limits& limits) {
  return table_entries(experts, limits) * int64_t{sizeof(Pointer)};
}

ExpertStream::ExpertStream(Device& device, const ExpertSending& sending, int32_t experts,
                           const Limits& limits)
    : device_(device),
      layers_(sending.layers),
      rates_(sending.rates),
      experts_(experts),
      slots_(limits.experts_sent),
      groups_(without_slots(layers_, experts)),
      slot_bytes_(largest_slot(groups_)),
      counts_(experts),
      is_sent_(experts),
      memory_(allocate_for(device, "experts on their way",
                           expert_stream_bytes(layers_, experts, limits))),
      host_tables_(
          device.allocate_pinned(static_cast<size_t>(expert_stream_pinned_bytes(experts, limits)))),
      uploaded_(device.create_event()),
      copies_(device.create_stream()) {
  for (std::vector<int32_t>* list : {&missing_, &tokens_}) list->reserve(experts);
  for (Half& half : halves_) half = {device.create_event(), device.create_event()};
  Slab slab(memory_.data());
  const Places places(slab, slot_bytes_, experts, limits);
  slot_memory_ = places.slots;
  device_tables_ = places.tables;
}

void ExpertStream::choose(int32_t layer, std::span<const int32_t> picks, const VramTier& held,
                          const ExpertStore& store) {
  layer_ = layer;
  held_ = &held;
  std::ranges::fill(counts_, 0);
  for (const int32_t pick : picks) counts_[pick] += held.holds(layer, pick) ? 0 : 1;
  missing_.clear();
  for (int32_t e = 0; e < experts_; ++e) {
    if (counts_[e] > 0) missing_.push_back(e);
  }
  std::ranges::sort(missing_, [&](int32_t a, int32_t b) {
    return counts_[a] != counts_[b] ? counts_[a] > counts_[b] : a < b;
  });
  tokens_.clear();
  for (const int32_t expert : missing_) tokens_.push_back(counts_[expert]);
  const int64_t wanted = count_to_send(tokens_, size_of(layers_[layer], experts_), rates_);
  const auto chosen = std::span(missing_).first(std::min(wanted, store.most_lent()));
  std::ranges::partition(chosen, [&](int32_t e) { return store.is_at_hand(layer, e); });
  sent_ = chosen;
  next_round_ = 0;
  std::ranges::fill(is_sent_, uint8_t{0});
  for (const int32_t expert : sent_) is_sent_[expert] = 1;
}

std::span<const int32_t> ExpertStream::sent_in(int64_t round) const {
  const auto rest = sent_.subspan(round * round_size());
  return rest.first(std::min<int64_t>(round_size(), std::ssize(rest)));
}

unsigned char* ExpertStream::slot(int64_t round, int64_t i) const {
  return slot_memory_ + (round % 2 * round_size() + i) * slot_bytes_;
}

DeviceExperts ExpertStream::on_device() const {
  DeviceExperts experts{held_->gate(layer_), held_->up(layer_), held_->down(layer_)};
  experts.gate.data = experts.up.data = experts.down.data = device_tables_;
  return experts;
}

DeviceExperts ExpertStream::sent_experts(int64_t round) const {
  DeviceExperts experts = on_device();
  Pointer* tables = device_tables_ + (1 + round * kExpertParts) * experts_;
  experts.gate.data = tables;
  experts.up.data = tables + experts_;
  experts.down.data = tables + 2 * experts_;
  return experts;
}

// Of the layer, on the host; all rounds', so that one copy brings them.
void ExpertStream::write_tables() {
  device_.synchronize(uploaded_);
  Pointer* tables = host_tables_.as<Pointer>();
  for (int32_t e = 0; e < experts_; ++e) {
    tables[e] = held_->holds(layer_, e) || sends(e) ? slot_memory_ : nullptr;
  }
  const VramSlotGroups::Group& group = groups_.groups[groups_.of_layer[layer_]];
  for (int64_t round = 0; round < rounds(); ++round) {
    tables += (round == 0 ? 1 : kExpertParts) * experts_;
    std::fill_n(tables, kExpertParts * experts_, nullptr);
    const auto sent = sent_in(round);
    for (int64_t i = 0; i < std::ssize(sent); ++i) {
      const auto places = group.places(slot(round, i));
      for (int p = 0; p < kExpertParts; ++p) tables[p * experts_ + sent[i]] = places[p];
    }
  }
}

void ExpertStream::copy_experts(int64_t round, const ExpertStore& store) {
  const VramSlotGroups::Group& group = groups_.groups[groups_.of_layer[layer_]];
  const auto sent = sent_in(round);
  for (int64_t i = 0; i < std::ssize(sent); ++i) {
    const auto places = group.places(slot(round, i));
    const auto parts = expert_parts(store.lent(layer_, sent[i]));
    for (int p = 0; p < kExpertParts; ++p) {
      device_.copy_to_device(places[p], parts[p].data, static_cast<size_t>(group.sizes[p]),
                             copies_);
    }
  }
}

void ExpertStream::begin(const Stream& compute) {
  write_tables();
  const int64_t entries = (1 + rounds() * kExpertParts) * experts_;
  device_.copy_to_device(device_tables_, host_tables_.data(),
                         static_cast<size_t>(entries) * sizeof(Pointer), compute);
  device_.record(uploaded_, compute);
}

void ExpertStream::run(const Stream& compute, const ExpertStore& store,
                       const std::function<void(const DeviceExperts&)>& use) {
  const auto is_at_hand = [&](int32_t e) { return store.is_at_hand(layer_, e); };
  for (; !is_done() && std::ranges::all_of(sent_in(next_round_), is_at_hand); ++next_round_) {
    const Half& half = halves_[next_round_ % 2];
    device_.wait(copies_, half.used);
    copy_experts(next_round_, store);
    device_.record(half.arrived, copies_);
    device_.wait(compute, half.arrived);
    use(sent_experts(next_round_));
    device_.record(half.used, compute);
  }
}

}  // namespace hearth
