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
// Stacks begin at pages, which all lie in the same few lines of a cache; these shift them.
constexpr size_t kShiftBytes = 5 * 64, kShifts = 64;

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

Fiber::Fiber(std::function<void()> work, Fiber& after, size_t number) {
  Stack stacks(kStackBytes + kShifts * kShiftBytes);
  const boost::context::stack_context all = stacks.allocate();
  const size_t shift = number % kShifts * kShiftBytes;
  const boost::context::preallocated part(static_cast<char*>(all.sp) - shift, all.size - shift,
                                          all);
  stack_bytes_ = all.size - shift;
  stack_ = static_cast<char*>(all.sp) - all.size;
  standing_ =
      boost::context::fiber(std::allocator_arg, part, stacks,
                            [this, &after, work = std::move(work)](boost::context::fiber&& left) {
                              arrive(std::move(left));
                              work();
                              after.from_ = this;
                              leave_stack(nullptr, after.stack_, after.stack_bytes_);
                              return std::move(after.standing_);
                            });
}

void Fiber::switch_to(Fiber& other) {
  other.from_ = this;
  leave_stack(&frames_, other.stack_, other.stack_bytes_);
  arrive(std::move(other.standing_).resume());
}

void Fiber::arrive(boost::context::fiber&& left) {
  from_->standing_ = std::move(left);
  enter_stack(frames_, &from_->stack_, &from_->stack_bytes_);
}

}  // namespace hearth::emulated
