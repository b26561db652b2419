#include "gpu_kernels/emulation/fibers.h"

#include <boost/context/preallocated.hpp>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace hearth::emulated {
namespace {

// Kernels keep little on the stack; sanitizers add to it.
constexpr size_t kStackBytes = 128 << 10;

void leave_stack([[maybe_unused]] void** frames, [[maybe_unused]] const void* stack,
                 [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(frames, stack, bytes);
#endif
}

void enter_stack([[maybe_unused]] void* frames, [[maybe_unused]] const void** left,
                 [[maybe_unused]] size_t* left_bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(frames, left, left_bytes);
#endif
}

using Stack = boost::context::protected_fixedsize_stack;

}  // namespace

Fiber::Fiber() {
  Stack stacks(kStackBytes);
  stack_ = stacks.allocate();
  const boost::context::preallocated whole(stack_.sp, stack_.size, stack_);
  inside_ = boost::context::fiber(std::allocator_arg, whole, stacks,
                                  [this](boost::context::fiber&& outside) {
                                    outside_ = std::move(outside);
                                    loop();
                                    return std::move(outside_);
                                  });
}

Fiber::~Fiber() {
  static const std::function<void()> kEnd;
  run(kEnd);
}

void Fiber::run(const std::function<void()>& work) {
  if (work_ == nullptr) work_ = &work;
  leave_stack(&outside_frames_, static_cast<char*>(stack_.sp) - stack_.size, stack_.size);
  inside_ = std::move(inside_).resume();
  enter_stack(outside_frames_, nullptr, nullptr);
}

void Fiber::pause() {
  leave_stack(&inside_frames_, outside_stack_, outside_stack_bytes_);
  outside_ = std::move(outside_).resume();
  enter_stack(inside_frames_, &outside_stack_, &outside_stack_bytes_);
}

// An empty function ends it.
void Fiber::loop() {
  enter_stack(nullptr, &outside_stack_, &outside_stack_bytes_);
  while (*work_) {
    (*work_)();
    work_ = nullptr;
    pause();
  }
  leave_stack(nullptr, outside_stack_, outside_stack_bytes_);
}

}  // namespace hearth::emulated
