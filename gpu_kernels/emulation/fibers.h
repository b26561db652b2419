// Fibers: flows of control that take turns on one thread, each on a stack of its own.
#pragma once

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstddef>
#include <functional>

namespace hearth::emulated {

class Fiber {
 public:
  // What runs already, on the thread's own stack.
  Fiber() = default;
  // Runs `work` when it is first switched to; where that returns, `after` goes on. Fibers of
  // different `number`s keep what they use of their stacks in different lines of the caches.
  Fiber(std::function<void()> work, Fiber& after, size_t number);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Called by what runs on this one: it stands still until it is switched to in its turn.
  void switch_to(Fiber& other);

 private:
  void arrive(boost::context::fiber&& left);

  boost::context::fiber standing_;  // where to go on, while it doesn't run
  Fiber* from_ = nullptr;           // who switched here last
  // What AddressSanitizer wants to be told at a change of stacks.
  void* frames_ = nullptr;
  const void* stack_ = nullptr;
  size_t stack_bytes_ = 0;
};

}  // namespace hearth::emulated
