// The faults of one profile. Which fields are faulty is kept, so that no check complains about
// what only follows from another fault.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "base/error.h"
#include "offload/machine/machine.h"

namespace hearth {

class ProfileFaults {
 public:
  explicit ProfileFaults(std::string where) : problems_(std::move(where)) {}

  // `pointer`: of the faulty field, or of the object it is missing from.
  void add(const std::string& pointer, const std::string& what);
  // The same fault under another name.
  void add_silently(const std::string& pointer);
  // Whether something is wrong with this field, below it or above it.
  bool at(const std::string& pointer) const;
  void throw_if_any() const { problems_.throw_if_any("Mend the profile, or measure a new one"); }

 private:
  Problems problems_;
  std::set<std::string, std::less<>> pointers_;
};

// What must hold between fields that are each well-formed.
void check_machine(const Machine& machine, ProfileFaults& faults);

// Text of a file for a message: cut short, and without what a terminal would obey.
std::string shown(std::string_view text);

}  // namespace hearth
