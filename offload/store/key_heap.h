// Keys ordered by a rank each, the least on top; any key's rank may change. A binary heap that
// knows where each key stands; only its constructor allocates.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace hearth {

class KeyHeap {
 public:
  explicit KeyHeap(int32_t keys) : rank_(keys, 0.0), place_(keys, -1), heap_(keys) {}

  bool empty() const { return size_ == 0; }
  double rank(int32_t key) const { return rank_[key]; }
  // Also for keys that are not in the heap.
  void set_rank(int32_t key, double rank) {
    rank_[key] = rank;
    if (place_[key] >= 0) settle(place_[key]);
  }
  void add(int32_t key) {
    put(size_, key);
    settle(size_++);
  }
  void remove(int32_t key) {
    const int32_t place = std::exchange(place_[key], -1);
    const int32_t last = heap_[--size_];
    if (last == key) return;
    put(place, last);
    settle(place);
  }
  int32_t top() const { return heap_[0]; }
  // Divides every rank, which keeps the order.
  void scale(double factor) {
    for (double& rank : rank_) rank *= factor;
  }

 private:
  void put(int32_t place, int32_t key) {
    heap_[place] = key;
    place_[key] = place;
  }
  void settle(int32_t place) {
    const int32_t key = heap_[place];
    const double rank = rank_[key];
    for (int32_t parent; place > 0 && rank < rank_[heap_[parent = (place - 1) / 2]];
         place = parent) {
      put(place, heap_[parent]);
    }
    for (int32_t child; (child = 2 * place + 1) < size_; place = child) {
      if (child + 1 < size_ && rank_[heap_[child + 1]] < rank_[heap_[child]]) ++child;
      if (!(rank_[heap_[child]] < rank)) break;
      put(place, heap_[child]);
    }
    put(place, key);
  }

  std::vector<double> rank_;    // [keys]
  std::vector<int32_t> place_;  // [keys] in heap_, -1: not there
  std::vector<int32_t> heap_;   // [keys], the first size_ in use
  int32_t size_ = 0;
};

}  // namespace hearth
