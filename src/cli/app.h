// The command line as a whole.
#pragma once

namespace hearth::cli {

// Parses the arguments and runs the command they name. Returns the exit code; throws Error.
int run_app(int argc, char** argv);

}  // namespace hearth::cli
