# What the scripts share. Sourced with the repository's root as the working folder.

# Announces a step, with the minutes and seconds since the script began.
step() { printf '\n[%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

# build PRESET [TARGET...]: configures and builds into build/PRESET, everything where no target is named. Compiler
# output is shown; progress only to a person.
build() {
  local preset=$1 log=build/$1/configure.log quiet=()
  shift
  mkdir -p "build/$preset"
  if ! cmake --preset "$preset" >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  [[ -t 1 ]] || quiet=(--quiet)
  cmake --build --preset "$preset" -j "$(nproc)" ${1:+--target "$@"} -- "${quiet[@]}"
}
