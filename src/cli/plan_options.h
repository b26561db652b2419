// What `plan` and `simulate` ask of the planner: the options, and the machine, model and request
// they name.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "offload/plan/planner.h"

namespace hearth::cli {

struct PlanOptions {
  std::string model;
  std::string machine;
  std::string quant, dense;
  std::string kv = "bf16";
  std::string routing = "text";
  std::string trace;  // recorded routing that the plan follows; empty: none
  int64_t context = 0, depth = -1, prompt = -1, answer = 512;
  bool no_gpu = false;
  PlanRequest request;
};

struct PlanCase {
  Machine machine;
  ModelShape shape;
  PlanRequest request;
};

// All but the model and the machine. `options` must outlive the command.
void add_plan_options(CLI::App& command, PlanOptions& options);
// Reads the profile and the model's header; throws Error.
PlanCase plan_case(const PlanOptions& options);

}  // namespace hearth::cli
