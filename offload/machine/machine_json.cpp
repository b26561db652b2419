#include "offload/machine/machine_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "base/error.h"
#include "offload/machine/machine_faults.h"
#include "offload/machine/machine_fields.h"

namespace hearth {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr int kDepthMax = 16;  // a profile needs seven
constexpr size_t kItemsMax = 256;
constexpr size_t kTextBytesMax = 1000;
constexpr int64_t kCountMax = int64_t{1} << 60;  // sums of some of them still fit
constexpr double kRateMax = 1e12;
constexpr double kRateMin = 1e-9;

// A key without the unit at its end, and whether it had one.
std::string_view stem_of(std::string_view key) {
  for (const std::string_view unit :
       {"_gb_s",    "_mb_s",   "_kb_s",  "_gib_s", "_mib_s", "_b_s", "_gflop_s",
        "_tflop_s", "_flop_s", "_bytes", "_gb",    "_mb",    "_gib", "_mib",
        "_ghz",     "_mhz",    "_hz",    "_us",    "_ms",    "_ns",  "_s"}) {
    if (key.ends_with(unit)) return key.substr(0, key.size() - unit.size());
  }
  return key;
}

std::string pointer_to(const std::string& parent, std::string_view key) {
  std::string token;
  for (const char c : shown(key)) {
    if (c == '~') token += "~0";
    if (c == '/') token += "~1";
    if (c != '~' && c != '/') token += c;
  }
  return parent + "/" + token;
}

// Reads the fields of one object.
class FieldReader {
 public:
  FieldReader(const Json& json, std::string pointer, ProfileFaults& faults)
      : json_(json), pointer_(std::move(pointer)), faults_(faults) {}

  template <typename T>
  void read(T& value) {
    if (!json_.is_object()) return faults_.add(pointer_, "must be an object");
    fields(*this, value);
    report_names();
  }

  void text(const char* key, std::string& value, bool may_be_empty = false) {
    const Json* json = find(key);
    if (json != nullptr) read_text(*json, pointer_to(pointer_, key), value, may_be_empty);
  }

  template <typename Integer>
  void count(const char* key, Integer& value, int64_t least) {
    const Json* json = find(key);
    if (json == nullptr) return;
    const std::string pointer = pointer_to(pointer_, key);
    const int64_t most = std::min<int64_t>(kCountMax, std::numeric_limits<Integer>::max());
    const bool is_small = json->is_number_integer() &&
                          (!json->is_number_unsigned() || json->get<uint64_t>() <= uint64_t(most));
    if (!json->is_number_integer()) {
      faults_.add(pointer, "must be a whole number");
    } else if (!is_small || json->get<int64_t>() < least || json->get<int64_t>() > most) {
      faults_.add(pointer, fmt::format("is {}, must be {} to {}", json->dump(), least, most));
    } else {
      value = json->get<Integer>();
    }
  }

  void rate(const char* key, double& value, bool may_be_zero = false) {
    const Json* json = find(key);
    if (json != nullptr) read_rate(*json, pointer_to(pointer_, key), value, may_be_zero);
  }

  template <typename T>
  void object(const char* key, T& value) {
    const Json* json = find(key);
    if (json != nullptr) FieldReader(*json, pointer_to(pointer_, key), faults_).read(value);
  }

  template <typename T>
  void list(const char* key, std::vector<T>& values, size_t least) {
    const Json* json = find(key);
    if (json == nullptr) return;
    const std::string pointer = pointer_to(pointer_, key);
    if (!json->is_array()) return faults_.add(pointer, "must be a list");
    if (json->size() < least || json->size() > kItemsMax) {
      return faults_.add(
          pointer, fmt::format("has {} items, must have {} to {}", json->size(), least, kItemsMax));
    }
    for (size_t i = 0; i < json->size(); ++i) {
      const std::string at = fmt::format("{}/{}", pointer, i);
      T& value = values.emplace_back();
      if constexpr (std::is_same_v<T, std::string>) {
        read_text((*json)[i], at, value, false);
      } else if constexpr (std::is_same_v<T, double>) {
        read_rate((*json)[i], at, value, false);
      } else {
        FieldReader((*json)[i], at, faults_).read(value);
      }
    }
  }

 private:
  const Json* find(const char* key) {
    known_.emplace(key);
    const auto found = json_.find(key);
    return found == json_.end() ? nullptr : &*found;
  }

  void read_text(const Json& json, const std::string& pointer, std::string& value,
                 bool may_be_empty) {
    if (!json.is_string()) return faults_.add(pointer, "must be a text");
    value = json.get<std::string>();
    const bool is_plain =
        std::ranges::none_of(value, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (value.empty() && !may_be_empty) faults_.add(pointer, "must not be empty");
    if (value.size() > kTextBytesMax) {
      faults_.add(pointer, fmt::format("is longer than {} bytes", kTextBytesMax));
    }
    if (!is_plain) faults_.add(pointer, "holds control characters");
  }

  void read_rate(const Json& json, const std::string& pointer, double& value, bool may_be_zero) {
    if (!json.is_number()) return faults_.add(pointer, "must be a number");
    value = json.get<double>();
    if (may_be_zero && value == 0) return;
    if (value < kRateMin || value > kRateMax) {
      faults_.add(pointer, fmt::format("is {}, must be {}, at most {}", json.dump(),
                                       may_be_zero ? "0 or more" : "more than 0", kRateMax));
    }
  }

  // Names that are missing or not known; where one of each differs only in the unit, once.
  void report_names() {
    std::set<std::string, std::less<>> missing;
    for (const std::string& key : known_) {
      if (!json_.contains(key)) missing.insert(key);
    }
    for (const auto& [key, value] : json_.items()) {
      if (known_.contains(key)) continue;
      const std::string pointer = pointer_to(pointer_, key);
      const auto meant = std::ranges::find(missing, stem_of(key), stem_of);
      if (meant == missing.end()) {
        faults_.add(pointer, "is no field of a profile");
      } else {
        faults_.add(pointer, fmt::format("has another unit, or none, at the end of its name than "
                                         "{}, which is missing",
                                         *meant));
        faults_.add_silently(pointer_to(pointer_, *meant));
        missing.erase(meant);
      }
    }
    for (const std::string& key : missing) {
      faults_.add(pointer_to(pointer_, key), "is missing");
    }
  }

  const Json& json_;
  const std::string pointer_;
  ProfileFaults& faults_;
  std::set<std::string, std::less<>> known_;
};

class FieldWriter {
 public:
  template <typename T>
  static OrderedJson json_of(T& value) {
    FieldWriter writer;
    fields(writer, value);
    return std::move(writer.json_);
  }

  void text(const char* key, const std::string& value, bool = false) { json_[key] = value; }
  template <typename Integer>
  void count(const char* key, Integer value, int64_t) {
    json_[key] = value;
  }
  void rate(const char* key, double value, bool = false) { json_[key] = value; }
  template <typename T>
  void object(const char* key, T& value) {
    json_[key] = json_of(value);
  }
  template <typename T>
  void list(const char* key, std::vector<T>& values, size_t) {
    OrderedJson& list = json_[key] = OrderedJson::array();
    for (T& value : values) {
      if constexpr (std::is_class_v<T> && !std::is_same_v<T, std::string>) {
        list.push_back(json_of(value));
      } else {
        list.push_back(value);
      }
    }
  }

 private:
  OrderedJson json_ = OrderedJson::object();
};

std::string one_line(const OrderedJson& json) {
  if (!json.is_structured()) return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string out;
  for (const auto& [key, value] : json.items()) {
    if (!out.empty()) out += ", ";
    if (json.is_object()) out += OrderedJson(key).dump() + ": ";
    out += one_line(value);
  }
  return json.is_object() ? "{" + out + "}" : "[" + out + "]";
}

// What is short, or a plain list, stays on a line, so that a person can read a table of rates.
void lay_out(const OrderedJson& json, const std::string& indent, std::string& out) {
  constexpr size_t kLineCharsMax = 110;
  const bool is_plain =
      !json.is_object() &&
      std::ranges::none_of(json, [](const OrderedJson& item) { return item.is_structured(); });
  const std::string line = one_line(json);
  if (is_plain || line.size() + indent.size() <= kLineCharsMax) {
    out += line;
    return;
  }
  const std::string inner = indent + " ";
  out += json.is_object() ? "{" : "[";
  const char* separator = "\n";
  for (const auto& [key, value] : json.items()) {
    out += separator + inner;
    if (json.is_object()) out += OrderedJson(key).dump() + ": ";
    lay_out(value, inner, out);
    separator = ",\n";
  }
  out += "\n" + indent + (json.is_object() ? "}" : "]");
}

// The text as a value, refusing what the library would pass over: deep nesting, repeated keys.
Json parse_json_text(std::string_view text, const std::string& where) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kDepthMax) {
      throw Error(fmt::format("nests deeper than {} levels", kDepthMax), where,
                  "A profile is flatter");
    }
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(parsed.get_ref<const std::string&>()).second) {
      throw Error(
          fmt::format("{} stands twice in one object", shown(parsed.get_ref<const std::string&>())),
          where, "Keep one of them");
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception& error) {
    const std::string_view message = error.what();
    throw Error("is not JSON: " + std::string(message.substr(message.find("] ") + 2)), where,
                "Profiles are JSON files, as hearth profile --out writes them");
  }
}

void check_assumptions(const Machine& machine, const Json& json, ProfileFaults& faults) {
  for (size_t i = 0; i < machine.assumed.size(); ++i) {
    const std::string pointer = fmt::format("/assumed/{}/field", i);
    if (faults.at(pointer)) continue;
    const std::string& field = machine.assumed[i].field;
    for (size_t j = 0; j < i; ++j) {
      if (machine.assumed[j].field == field) faults.add(pointer, "stands there twice");
    }
    bool found = false;
    try {
      found = json.contains(Json::json_pointer(field));
    } catch (const Json::exception&) {  // no JSON pointer at all
    }
    if (!found) faults.add(pointer, shown(field) + " points to nothing in this profile");
  }
}

}  // namespace

Machine parse_machine(std::string_view text, const std::string& where) {
  if (std::ssize(text) > kProfileBytesMax) {
    throw Error(fmt::format("is larger than {} bytes", kProfileBytesMax), where,
                "A machine profile is a small JSON file");
  }
  const Json json = parse_json_text(text, where);
  if (json.is_object() && json.contains("version") && json["version"] != kProfileVersion) {
    throw Error(fmt::format("/version: is {}; this program reads {}", shown(json["version"].dump()),
                            kProfileVersion),
                where, "Measure a new profile, or use the program that wrote this one");
  }
  ProfileFaults faults(where);
  Machine machine;
  FieldReader(json, "", faults).read(machine);
  check_machine(machine, faults);
  check_assumptions(machine, json, faults);
  faults.throw_if_any();
  return machine;
}

Machine read_machine(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw Error("is a folder", path.string(), "Name a profile in it");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw Error("cannot be opened", path.string(), "Check the name and the permissions");
  }
  std::string text(kProfileBytesMax + 1, '\0');  // one more, so that a larger file is seen
  file.read(text.data(), std::ssize(text));
  text.resize(static_cast<size_t>(file.gcount()));
  return parse_machine(text, path.string());
}

std::string write_machine(const Machine& machine) {
  Machine copy = machine;  // the fields are walked as for reading
  std::string out;
  lay_out(FieldWriter::json_of(copy), "", out);
  return out + "\n";
}

}  // namespace hearth
