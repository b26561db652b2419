// The compute threads: fork-join loops over ranges. One loop runs at a time; the caller takes part.
#pragma once

#include <cstdint>
#include <functional>
#include <type_traits>

namespace hearth {

// A borrowed callable void(int64_t begin, int64_t end, int thread); it must not throw.
class RangeBody {
 public:
  template <typename F>
  RangeBody(F& body)  // NOLINT: implicit, so that a lambda can be passed
      : object_(&body), call_([](void* object, int64_t begin, int64_t end, int thread) {
          (*static_cast<F*>(object))(begin, end, thread);
        }) {}
  void operator()(int64_t begin, int64_t end, int thread) const {
    call_(object_, begin, end, thread);
  }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int64_t, int);
};

class Workers {
 public:
  explicit Workers(int threads) : threads_(threads) {}
  int threads() const { return threads_; }

  // Runs `body(thread)` once on every thread, each the one that has this number in all loops.
  void on_each_thread(const std::function<void(int)>& body) const;

  // Cuts [0, count) into pieces of at most `grain` and runs each once, on any thread
  // (0 <= thread < threads()). Returns when all are done.
  template <typename F>
  void for_range(int64_t count, int64_t grain, F&& body) const noexcept {
    std::remove_reference_t<F>& borrowed = body;
    run(count, grain, RangeBody(borrowed));
  }

 private:
  void run(int64_t count, int64_t grain, RangeBody body) const noexcept;

  int threads_;
};

}  // namespace hearth
