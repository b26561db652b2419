// Fibers that are kept and used again: each runs what it is given, piece by piece, on a stack of
// its own.
#pragma once

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstddef>
#include <functional>

namespace hearth::emulated {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs `work` on this fiber until it pauses or returns; with work begun before, goes on with that
  // one.
  void run(const std::function<void()>& work);
  // Called from within the work: back to whoever called run.
  void pause();
  bool idle() const { return work_ == nullptr; }

 private:
  void loop();

  boost::context::stack_context stack_;
  boost::context::fiber inside_, outside_;
  const std::function<void()>* work_ = nullptr;
  // What AddressSanitizer wants to be told at a change of stacks.
  void* inside_frames_ = nullptr;
  void* outside_frames_ = nullptr;
  const void* outside_stack_ = nullptr;
  size_t outside_stack_bytes_ = 0;
};

}  // namespace hearth::emulated
