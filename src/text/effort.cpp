#include "text/effort.h"

#include <string>

namespace hearth {
namespace {

constexpr std::string_view kAbsoluteMaximum =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";

constexpr std::string_view kBeyondMaximum =
    "Reasoning Effort: Beyond maximum \xE2\x80\x94 exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
    "exhaustively decompose the problem into its most fundamental components, trace every causal "
    "chain to its root, and resolve the underlying cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles "
    "and are certain that no assumption remains unchecked and no error remains undiscovered.\n\n";

struct EffortName {
  std::string_view name;
  Effort preview;
  Effort later;
};
constexpr EffortName kEffortNames[] = {
    {"minimal", Effort::kHigh, Effort::kLow}, {"low", Effort::kHigh, Effort::kLow},
    {"medium", Effort::kHigh, Effort::kHigh}, {"high", Effort::kHigh, Effort::kHigh},
    {"xhigh", Effort::kMax, Effort::kHigh},   {"max", Effort::kMax, Effort::kMax},
    {"ultra", Effort::kMax, Effort::kMax},
};

bool contains(const std::string* text, std::string_view part) {
  return text && text->find(part) != std::string::npos;
}

}  // namespace

ChatProfile find_chat_profile(const TensorDir& dir) {
  const bool is_later =
      contains(dir.text("tokenizer.chat_template"), "Reasoning Effort: Beyond maximum") ||
      contains(dir.text("general.name"), "0731");
  return is_later ? ChatProfile::k0731 : ChatProfile::kPreview;
}

std::optional<Thinking> find_thinking(std::string_view name, ChatProfile profile) {
  if (name == "none") return Thinking{false, {}};
  for (const EffortName& known : kEffortNames) {
    if (known.name != name) continue;
    return Thinking{true, profile == ChatProfile::kPreview ? known.preview : known.later};
  }
  return {};
}

std::string_view effort_text(std::optional<Effort> effort, ChatProfile profile) {
  const bool is_later = profile == ChatProfile::k0731;
  if (effort == Effort::kMax) return is_later ? kBeyondMaximum : kAbsoluteMaximum;
  if (effort == Effort::kHigh && is_later) return kAbsoluteMaximum;
  return {};
}

}  // namespace hearth
