// Which expert leaves a full cache. A policy only orders keys; who holds what where is its owner's
// business, so that simulation and a real store drive the same objects.
//
// The protocol of a step: begin_step(layer), touch() every key the layer needs, remove() those that
// are in the cache (in use they can't leave), take a victim() for each that has to come in, and
// when the layer is done add() them all. Keys are layer * experts + expert; no call but the
// constructor allocates. One thread owns a policy.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace hearth {

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;
  // The layers take turns: 0, 1, ... and again from 0.
  virtual void begin_step(int32_t layer) = 0;
  // The key is used in this step, whether it is in the cache or not.
  virtual void touch(int32_t key) = 0;
  // The key may leave from here on. It must not be added twice.
  virtual void add(int32_t key) = 0;
  // The key may not leave any more, or left. It must have been added.
  virtual void remove(int32_t key) = 0;
  // The key to give up first, removed by this call; -1 where none may leave.
  virtual int32_t victim() = 0;
};

// The shape of what is cached.
struct CacheShape {
  int32_t layers;
  int32_t experts;  // of a layer

  int32_t pairs() const { return layers * experts; }
};

// Least recently used. O(1) a call.
std::unique_ptr<CachePolicy> make_lru_policy(CacheShape shape);

// Least often used, where a use counts half after `half_life` passes through the layers. O(log
// pairs) a call.
std::unique_ptr<CachePolicy> make_lfu_policy(CacheShape shape, double half_life = 64);

// The one whose next use is expected farthest away; reuse_policy.cpp says how. A call costs one
// pass over the experts of a layer at most.
std::unique_ptr<CachePolicy> make_reuse_policy(CacheShape shape);

// Belady's optimum: the one that is used next farthest away. `keys` are all keys that will be
// touched, in that order; they must outlive the policy. O(log pairs) a call.
std::unique_ptr<CachePolicy> make_optimal_policy(CacheShape shape,
                                                 const std::vector<int32_t>& keys);

}  // namespace hearth
