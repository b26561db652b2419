// A GPU as the rest of hearth sees it: memory, streams of work, events that order them, copies, and
// its kernels. CUDA and a fake in host memory implement it; the code above does not know which it
// has.
//
// One thread at a time uses a device. Everything that takes a stream only enqueues: it may happen
// any time later, until the stream is synchronised, and host memory that it reads or writes must
// stay as it is until then. Work of one stream goes in order, work of two has an order only where
// an event gives one.
//
// A device outlives what was made from it. A failure of the hardware or its driver is thrown as an
// Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu_kernels/gpu_kernels.h"

namespace hearth {

class Device;

// What a device made and takes back: move-only, empty after a move.
template <void (*kRelease)(Device&, void*) noexcept>
class DeviceHandle {
 public:
  DeviceHandle() = default;
  DeviceHandle(Device& device, void* what) : device_(&device), what_(what) {}
  ~DeviceHandle() {
    if (what_ != nullptr) kRelease(*device_, what_);
  }
  DeviceHandle(DeviceHandle&& other) noexcept { swap(other); }
  DeviceHandle& operator=(DeviceHandle&& other) noexcept {
    swap(other);
    return *this;
  }
  void* get() const { return what_; }

 private:
  void swap(DeviceHandle& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(what_, other.what_);
  }

  Device* device_ = nullptr;
  void* what_ = nullptr;
};

void release_memory(Device& device, void* memory) noexcept;
void release_pinned(Device& device, void* memory) noexcept;
void release_stream(Device& device, void* stream) noexcept;
void release_event(Device& device, void* event) noexcept;
void release_graph(Device& device, void* graph) noexcept;
void unpin(Device& device, void* memory) noexcept;

// Bytes with an owner: of the device (no host code may read them), or of the host, pinned, so that
// copies run beside everything else.
template <void (*kRelease)(Device&, void*) noexcept>
class OwnedBytes {
 public:
  OwnedBytes() = default;
  OwnedBytes(Device& device, void* memory, size_t bytes) : handle_(device, memory), bytes_(bytes) {}
  OwnedBytes(OwnedBytes&& other) noexcept { swap(other); }
  OwnedBytes& operator=(OwnedBytes&& other) noexcept {
    swap(other);
    return *this;
  }

  size_t bytes() const { return bytes_; }
  unsigned char* data() const { return static_cast<unsigned char*>(handle_.get()); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(handle_.get());
  }

 private:
  void swap(OwnedBytes& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(bytes_, other.bytes_);
  }

  DeviceHandle<kRelease> handle_;
  size_t bytes_ = 0;
};

// Holds anything at first. Begins at a multiple of 16 bytes, and of the last 16 all may be read.
using DeviceBuffer = OwnedBytes<release_memory>;
using PinnedBuffer = OwnedBytes<release_pinned>;
// Memory of somebody else, pinned while this lives; it has to stay allocated as long.
using PinnedRange = OwnedBytes<unpin>;

// A pinned range, or in plain words why the system refused it: then the memory is as before.
struct Pinning {
  PinnedRange range;
  std::string why_not;
};

// Addresses of a device's memory that stay, and memory behind those that are wanted, in whole
// pages. A device that can't do so has one page, with its memory from the begin. Move-only.
class DeviceRange {
 public:
  DeviceRange() = default;
  // Addresses alone. Throws Error where they are refused.
  DeviceRange(Device& device, size_t bytes);
  ~DeviceRange();
  DeviceRange(DeviceRange&& other) noexcept { swap(other); }
  DeviceRange& operator=(DeviceRange&& other) noexcept {
    swap(other);
    return *this;
  }

  unsigned char* data() const { return data_; }
  size_t bytes() const { return bytes_; }        // of addresses
  size_t taken_bytes() const { return taken_; }  // that have memory
  // Memory for all pages that meet the bytes `begin` to `end`. An Error as of Device::allocate;
  // some of them may have theirs then.
  void take(size_t begin, size_t end);
  // Gives the memory of pages that begin at byte `from` or behind it back, when the device's work
  // is done.
  void give_back(size_t from);

 private:
  struct Run {
    size_t first, count;  // pages that got their memory together
  };
  void swap(DeviceRange& other) noexcept;

  Device* device_ = nullptr;
  unsigned char* data_ = nullptr;
  size_t bytes_ = 0;
  size_t page_ = 0;  // bytes; 0: there is one, all of it
  size_t taken_ = 0;
  std::vector<bool> has_memory_;  // [pages]
  std::vector<Run> runs_;
};

class Stream : public DeviceHandle<release_stream> {
 public:
  using DeviceHandle::DeviceHandle;
  GpuStream handle() const { return get(); }  // for the kernels
};

class Event : public DeviceHandle<release_event> {
 public:
  using DeviceHandle::DeviceHandle;
};

class DeviceGraph : public DeviceHandle<release_graph> {
 public:
  using DeviceHandle::DeviceHandle;
};

enum class EventTiming { kOff, kOn };

// What computes on it.
struct DeviceCores {
  int32_t processors;  // streaming multiprocessors
  double clock_ghz;    // theirs, at most
};

struct DeviceMemory {
  int64_t free_bytes;
  int64_t total_bytes;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual const std::string& name() const = 0;
  virtual const GpuKernels& kernels() const = 0;
  virtual DeviceMemory memory() const = 0;
  virtual DeviceCores cores() const = 0;

  // An Error says how much was asked for, how much is free and what to do. Zero bytes give an empty
  // buffer.
  DeviceBuffer allocate(size_t bytes);
  // Kernels read and write it too, over the link and at the same addresses.
  PinnedBuffer allocate_pinned(size_t bytes);
  // Of a DeviceRange, which takes whole ones; 0 where ranges have their memory from the begin.
  virtual size_t page_bytes() const = 0;
  // Pins memory that exists. No page of it may be pinned already, by any range or buffer. Takes as
  // long as the system needs to make every page resident. Zero bytes give an empty range.
  Pinning pin(void* memory, size_t bytes);
  Stream create_stream();
  // One with timing also notes when it was reached, which costs a little.
  Event create_event(EventTiming timing = EventTiming::kOff);

  // `to` and `from` lie within live buffers of this device where they are the device's. The host's
  // lies within one pinned buffer or range, or meets none: then CUDA copies through memory of its
  // own, and the host waits for that.
  virtual void copy_to_device(void* to, const void* from, size_t bytes, const Stream& stream) = 0;
  virtual void copy_to_host(void* to, const void* from, size_t bytes, const Stream& stream) = 0;
  virtual void copy_on_device(void* to, const void* from, size_t bytes, const Stream& stream) = 0;

  // The event stands for all work now in the stream; recorded again, for the later one.
  virtual void record(const Event& event, const Stream& stream) = 0;
  // Later work of the stream begins after what the event stands for now; one never recorded stands
  // for nothing.
  virtual void wait(const Stream& stream, const Event& event) = 0;
  // Whether what the event stands for is done.
  virtual bool done(const Event& event) = 0;

  // From when `first` was reached to when `last` was, negative where that was earlier. Both have
  // timing, were recorded and are done. A GPU's clock has a resolution of about half a microsecond,
  // and the difference is a float of milliseconds. Other streams' work between the two counts too.
  virtual double seconds_between(const Event& first, const Event& last) = 0;

  // Work of a stream to be launched many times, at less cost to the host than enqueueing it.
  //
  // What `enqueue` puts into the stream is recorded and does not run. A stream that waits for an
  // event recorded in here joins, and before the end the first stream waits for all that was
  // recorded from others. Waits are for events recorded in here; these stand for nothing outside,
  // until they are recorded again. `enqueue` makes, gives back, launches and waits on the host for
  // nothing, and copies from and to pinned memory of the host only. What it throws ends the capture
  // and is thrown on.
  DeviceGraph capture(const Stream& stream, const std::function<void()>& enqueue);
  // A launch is one piece of work of the stream, which may be any; launches of one graph go one
  // after the other. Kernels have the parameters they were captured with, and copies the addresses:
  // buffers and pinned memory stay where they are as long as the graph is launched, and what they
  // hold counts when the work runs.
  virtual void launch(const DeviceGraph& graph, const Stream& stream) = 0;

  virtual void synchronize() = 0;
  virtual void synchronize(const Stream& stream) = 0;
  virtual void synchronize(const Event& event) = 0;

 protected:
  virtual void* new_memory(size_t bytes) = 0;
  virtual void* new_pinned(size_t bytes) = 0;
  // Of whole pages, where there are pages.
  virtual void* new_addresses(size_t bytes) = 0;
  virtual void free_addresses(void* begin, size_t bytes) noexcept = 0;
  virtual void map(void* begin, size_t bytes) = 0;
  // What was mapped at once, when all work is done.
  virtual void unmap(void* begin, size_t bytes) noexcept = 0;
  // Empty where the system agreed.
  virtual std::string try_pin(void* memory, size_t bytes) = 0;
  virtual void* new_stream() = 0;
  virtual void* new_event(EventTiming timing) = 0;
  virtual void begin_capture(const Stream& stream) = 0;
  virtual void* end_capture(const Stream& stream) = 0;  // the graph; ended also where it throws
  virtual void drop_capture(const Stream& stream) noexcept = 0;
  virtual void free_graph(void* graph) noexcept = 0;
  virtual void free_memory(void* memory) noexcept = 0;
  virtual void free_pinned(void* memory) noexcept = 0;
  virtual void end_pin(void* memory) noexcept = 0;
  virtual void free_stream(void* stream) noexcept = 0;
  virtual void free_event(void* event) noexcept = 0;

  [[noreturn]] void throw_out_of_memory(size_t bytes) const;
  [[noreturn]] void throw_cannot_pin(size_t bytes, const std::string& why) const;

 private:
  bool capturing_ = false;
  friend class DeviceRange;
  friend void release_memory(Device& device, void* memory) noexcept;
  friend void release_pinned(Device& device, void* memory) noexcept;
  friend void release_stream(Device& device, void* stream) noexcept;
  friend void release_event(Device& device, void* event) noexcept;
  friend void release_graph(Device& device, void* graph) noexcept;
  friend void unpin(Device& device, void* memory) noexcept;
};

// A device, or in plain words why there is none.
struct FoundDevice {
  std::unique_ptr<Device> device;
  std::string why_not;
};

// The GPU of that number, from 0. Throws an Error only where a GPU is there and fails.
FoundDevice open_device(int index);

}  // namespace hearth
