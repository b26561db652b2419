#include "cli/interrupt.h"

#include <signal.h>

namespace hearth::cli {
namespace {

volatile sig_atomic_t interrupted = 0;
struct sigaction previous_action;

void note_interrupt(int) { interrupted = 1; }

}  // namespace

InterruptGuard::InterruptGuard() {
  clear();
  // No SA_RESTART: a read that waits for a line returns, so that the line can be dropped.
  struct sigaction action = {};
  action.sa_handler = note_interrupt;
  sigaction(SIGINT, &action, &previous_action);
}

InterruptGuard::~InterruptGuard() { sigaction(SIGINT, &previous_action, nullptr); }

bool InterruptGuard::requested() const { return interrupted != 0; }
void InterruptGuard::clear() { interrupted = 0; }

}  // namespace hearth::cli
