#include "support.h"

#include <stdlib.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace hearth::test {
namespace {

int skip_count = 0;
Limits current_limits;
std::string current_device = "fake";

// Set before main, in whatever order.
Gate& gate_of_program() {
  static Gate gate = nullptr;
  return gate;
}

}  // namespace

std::filesystem::path data(const std::string& name) {
  return std::filesystem::path(HEARTH_TEST_DATA) / name;
}
std::filesystem::path models(const std::string& name) {
  return std::filesystem::path(HEARTH_MODELS) / name;
}
std::filesystem::path profiles() { return HEARTH_PROFILES; }
std::filesystem::path binary() { return HEARTH_BINARY; }

bool has_shared() { return std::filesystem::exists(HEARTH_SHARED); }
std::filesystem::path shared(const std::string& name) {
  return std::filesystem::path(HEARTH_SHARED) / name;
}
void skip(const std::string& why) {
  HEARTH_CHECK(!has_shared());
  ++skip_count;
  std::printf("skipped: %s\n", why.c_str());
}
int skipped() { return skip_count; }

const Limits& limits() { return current_limits; }
void set_limits(const Limits& limits) { current_limits = limits; }

const std::string& device() { return current_device; }
void set_device(std::string name) { current_device = std::move(name); }
void set_gate(Gate gate) { gate_of_program() = gate; }
std::string why_not_here() { return gate_of_program() != nullptr ? gate_of_program()() : ""; }

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  HEARTH_CHECK(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

template <typename T>
std::vector<T> read_array(const std::filesystem::path& path) {
  const std::string bytes = read_text(path);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}
template std::vector<float> read_array(const std::filesystem::path&);
template std::vector<int32_t> read_array(const std::filesystem::path&);
template std::vector<unsigned char> read_array(const std::filesystem::path&);

std::vector<int32_t> read_ids(const std::filesystem::path& path) {
  std::istringstream in(read_text(path));
  return {std::istream_iterator<int32_t>(in), {}};
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "hearth-test-XXXXXX").string();
  HEARTH_CHECK(mkdtemp(name.data()) != nullptr);
  path_ = name;
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

double max_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

}  // namespace hearth::test
