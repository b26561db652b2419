#include "format/gguf_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "format/byte_reader.h"
#include "format/gguf_value.h"

namespace hearth {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF headers are little endian");

// Far above what any model has: the released ones need a header of some 10 MB, 60 keys and 1500
// tensors.
constexpr uint64_t kHeaderBytesMax = uint64_t{1} << 27;
constexpr uint64_t kKeysMax = uint64_t{1} << 16;
constexpr uint64_t kTensorsMax = uint64_t{1} << 16;

constexpr uint64_t kKeyBytesMin = 13;     // empty name, type, a value of one byte
constexpr uint64_t kTensorBytesMin = 32;  // empty name, one dimension, type, offset
constexpr uint32_t kDimsMax = 4;
constexpr uint64_t kDefaultAlignment = 32;

uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

class HeaderParser {
 public:
  HeaderParser(std::span<const unsigned char> file, const std::string& prefix, Problems& problems)
      : file_bytes_(file.size()),
        data_(file.data()),
        prefix_(prefix),
        problems_(problems),
        reader_(file.first(std::min<uint64_t>(file.size(), kHeaderBytesMax))),
        values_(reader_) {}

  GgufHeader parse() {
    if (read_counts() && read_metadata()) {
      read_alignment();
      if (read_tensors() && !found_problems_) check_layout();
    }
    header_.complete = !found_problems_;
    return std::move(header_);
  }

 private:
  void problem(const std::string& text) {
    found_problems_ = true;
    problems_.add(prefix_ + text);
  }

  bool read_counts();
  bool read_metadata();
  bool read_pair(uint64_t i);
  void read_alignment();
  bool read_tensors();
  bool read_tensor(uint64_t i);
  bool set_size(TensorEntry& tensor, uint32_t type, const std::string& label);
  void check_layout();
  uint64_t data_section_bytes() const;
  void check_inside(const std::vector<TensorEntry*>& by_offset);
  void check_dense(const std::vector<TensorEntry*>& by_offset);

  const uint64_t file_bytes_;
  const unsigned char* const data_;
  const std::string& prefix_;
  Problems& problems_;
  ByteReader reader_;
  GgufValueReader values_;
  GgufHeader header_;
  bool found_problems_ = false;
  uint64_t key_count_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::set<std::string, std::less<>> keys_;  // all of them, also those whose values were not kept
  std::set<std::string, std::less<>> tensor_names_;
};

bool HeaderParser::read_counts() {
  constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
  const uint32_t magic = reader_.read<uint32_t>();
  if (reader_.failed() || magic != kMagic) {
    problem("not a GGUF file: it does not begin with the letters GGUF");
    return false;
  }
  header_.version = reader_.read<uint32_t>();
  tensor_count_ = reader_.read<uint64_t>();
  key_count_ = reader_.read<uint64_t>();
  const uint64_t remaining = reader_.remaining();
  if (reader_.failed()) {
    problem(fmt::format("the file ends after {} bytes, inside the header", file_bytes_));
  } else if (header_.version != 0 && (header_.version & 0xffff) == 0) {
    problem("the file is big-endian; only little-endian files can be read");
  } else if (header_.version != 2 && header_.version != 3) {
    problem(fmt::format("GGUF version {}; versions 2 and 3 can be read", header_.version));
  } else {
    if (key_count_ > std::min(kKeysMax, remaining / kKeyBytesMin)) {
      problem(fmt::format("the header claims {} keys, more than {} bytes can hold or than {}",
                          key_count_, remaining, kKeysMax));
    }
    if (tensor_count_ > std::min(kTensorsMax, remaining / kTensorBytesMin)) {
      problem(fmt::format("the header claims {} tensors, more than {} bytes can hold or than {}",
                          tensor_count_, remaining, kTensorsMax));
    }
  }
  return !found_problems_;
}

bool HeaderParser::read_metadata() {
  for (uint64_t i = 0; i < key_count_; ++i) {
    if (!read_pair(i)) return false;
  }
  return true;
}

// False where the place of the next pair is not known.
bool HeaderParser::read_pair(uint64_t i) {
  const std::string_view name = reader_.read_text();
  const uint32_t type = reader_.read<uint32_t>();
  if (reader_.failed()) {
    problem(fmt::format("the header ends inside key {} of {}, or its name has a wrong length",
                        i + 1, key_count_));
    return false;
  }
  const std::string label = fmt::format("key {} of {}, {}", i + 1, key_count_, in_quotes(name));
  const std::string bad_name = name_problem(name);
  if (!bad_name.empty()) problem(label + ": " + bad_name);

  std::string bad_value;
  std::optional<MetadataValue> value = values_.read(type, bad_value);
  if (!bad_value.empty()) {
    problem(label + ": " + bad_value);
  } else if (reader_.failed()) {
    problem(label + ": the header ends inside the value, or a length in it is wrong");
  }
  if (reader_.failed()) return false;

  if (!keys_.emplace(name).second) problem(label + ": the key stands there twice");
  if (value) header_.metadata.emplace(name, std::move(*value));
  return true;
}

void HeaderParser::read_alignment() {
  const auto found = header_.metadata.find("general.alignment");
  if (found == header_.metadata.end()) return;
  const int64_t* value = std::get_if<int64_t>(&found->second);
  if (value == nullptr) return problem("general.alignment is not an integer");
  const uint64_t alignment = static_cast<uint64_t>(*value);
  if (*value < 8 || *value > std::numeric_limits<uint32_t>::max() ||
      !std::has_single_bit(alignment)) {
    return problem(fmt::format("general.alignment is {}, not a power of two from 8 up", *value));
  }
  alignment_ = alignment;
}

bool HeaderParser::read_tensors() {
  header_.tensors.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) {
    if (!read_tensor(i)) return false;
  }
  return true;
}

// False where the place of the next tensor is not known. `offset` still counts from the data
// section.
bool HeaderParser::read_tensor(uint64_t i) {
  const std::string_view name = reader_.read_text();
  const uint32_t dims = reader_.read<uint32_t>();
  if (reader_.failed()) {
    problem(fmt::format("the header ends inside tensor {} of {}, or its name has a wrong length",
                        i + 1, tensor_count_));
    return false;
  }
  const std::string label =
      fmt::format("tensor {} of {}, {}", i + 1, tensor_count_, in_quotes(name));
  const std::string bad_name = name_problem(name);
  if (!bad_name.empty()) problem(label + ": " + bad_name);
  if (dims < 1 || dims > kDimsMax) {
    problem(fmt::format("{}: {} dimensions; 1 to {} are possible", label, dims, kDimsMax));
    return false;
  }
  TensorEntry tensor{std::string(name), {}, {}, 0, 0, 0, nullptr};
  for (uint32_t d = 0; d < dims; ++d) tensor.dims.push_back(reader_.read<int64_t>());
  const uint32_t type = reader_.read<uint32_t>();
  tensor.offset = reader_.read<uint64_t>();
  if (reader_.failed()) {
    problem(label + ": the header ends inside it");
    return false;
  }
  if (!tensor_names_.emplace(name).second) problem(label + ": the tensor stands there twice");
  if (tensor.offset % alignment_ != 0) {
    problem(fmt::format("{}: offset {} is no multiple of the alignment {}", label, tensor.offset,
                        alignment_));
  }
  if (set_size(tensor, type, label)) header_.tensors.push_back(std::move(tensor));
  return true;
}

// Type and bytes from the type id and the dimensions; false, with a problem, where they make no
// tensor.
bool HeaderParser::set_size(TensorEntry& tensor, uint32_t type, const std::string& label) {
  const TypeInfo* info = find_type(type);
  if (info == nullptr) {
    problem(fmt::format("{}: weight format {} is not known to this program", label, type));
    return false;
  }
  tensor.type = info->type;
  int64_t weights = 1;
  for (const int64_t dim : tensor.dims) {
    if (dim < 1) {
      problem(fmt::format("{}: a dimension is {}", label, static_cast<uint64_t>(dim)));
      return false;
    }
    if (__builtin_mul_overflow(weights, dim, &weights)) {
      problem(fmt::format("{}: the dimensions {} multiply to more than 2^63 weights", label,
                          fmt::join(tensor.dims, " x ")));
      return false;
    }
  }
  if (tensor.dims[0] % info->block_size != 0) {
    problem(fmt::format("{}: rows of {} weights are no multiple of the {} in a block of {}", label,
                        tensor.dims[0], info->block_size, info->name));
    return false;
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(weights / info->block_size, int64_t{info->block_bytes}, &bytes)) {
    problem(fmt::format("{}: the dimensions {} take more than 2^63 bytes", label,
                        fmt::join(tensor.dims, " x ")));
    return false;
  }
  tensor.bytes = static_cast<uint64_t>(bytes);
  return true;
}

// The tensors must tile the data section: inside the file, without overlaps and without gaps wider
// than the alignment asks for. Writers lay them out so, and it finds nearly every changed shape,
// type or offset.
void HeaderParser::check_layout() {
  std::vector<TensorEntry*> by_offset;
  for (TensorEntry& tensor : header_.tensors) by_offset.push_back(&tensor);
  std::stable_sort(by_offset.begin(), by_offset.end(),
                   [](const auto* a, const auto* b) { return a->offset < b->offset; });
  check_inside(by_offset);
  check_dense(by_offset);
  if (found_problems_) return;
  const uint64_t data_begin = round_up(reader_.position(), alignment_);
  for (TensorEntry& tensor : header_.tensors) {
    tensor.offset += data_begin;
    tensor.data = data_ + tensor.offset;
  }
}

uint64_t HeaderParser::data_section_bytes() const {
  const uint64_t data_begin = round_up(reader_.position(), alignment_);
  return file_bytes_ > data_begin ? file_bytes_ - data_begin : 0;
}

// One problem for all tensors that are cut off: a broken download loses hundreds of them.
void HeaderParser::check_inside(const std::vector<TensorEntry*>& by_offset) {
  const uint64_t data_bytes = data_section_bytes();
  const TensorEntry* first = nullptr;
  uint64_t outside = 0;
  for (const TensorEntry* tensor : by_offset) {
    if (tensor->offset <= data_bytes && tensor->bytes <= data_bytes - tensor->offset) continue;
    if (outside++ == 0) first = tensor;
  }
  if (outside == 0) return;
  problem(fmt::format(
      "{} of {} tensors lie past the end of the file, the first {}: {} bytes from {} on in a data "
      "section of {} bytes",
      outside, tensor_count_, in_quotes(first->name), first->bytes, first->offset, data_bytes));
}

void HeaderParser::check_dense(const std::vector<TensorEntry*>& by_offset) {
  uint64_t end = 0;  // of all tensors so far
  std::string before = "the start of the data section";
  for (const TensorEntry* tensor : by_offset) {
    const uint64_t expected = round_up(end, alignment_);
    if (tensor->offset < end) {
      problem(fmt::format("tensor {} at offset {} overlaps {}, which ends at {}",
                          in_quotes(tensor->name), tensor->offset, before, end));
    } else if (tensor->offset > expected) {
      problem(fmt::format("a gap of {} bytes before tensor {} at offset {}, after {}",
                          tensor->offset - expected, in_quotes(tensor->name), tensor->offset,
                          before));
    }
    // An end past 2^64 was reported as outside the file.
    if (tensor->bytes > std::numeric_limits<uint64_t>::max() - alignment_ - tensor->offset) return;
    if (tensor->offset + tensor->bytes < end) continue;
    end = tensor->offset + tensor->bytes;
    before = "tensor " + in_quotes(tensor->name);
  }
  // A last tensor that is smaller than it was written shows as bytes that belong to none.
  const uint64_t used = round_up(end, alignment_);
  if (data_section_bytes() > used) {
    problem(
        fmt::format("{} bytes after {} belong to no tensor", data_section_bytes() - used, before));
  }
}

}  // namespace

GgufHeader parse_gguf_header(std::span<const unsigned char> file, const std::string& prefix,
                             Problems& problems) {
  return HeaderParser(file, prefix, problems).parse();
}

}  // namespace hearth
