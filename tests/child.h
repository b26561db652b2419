// A failed check ends the program, so what should fail one runs in a child.
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "base/check.h"

namespace hearth::test {

// What the failed check printed, or nothing where `body` returned.
template <typename F>
std::string failed_check(F&& body) {
  int ends[2];
  HEARTH_CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  HEARTH_CHECK(child >= 0);
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // the test program's own handler would report it
    dup2(ends[1], STDERR_FILENO);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char part[256];
  for (ssize_t got; (got = read(ends[0], part, sizeof(part))) > 0;)
    text.append(part, static_cast<size_t>(got));
  close(ends[0]);
  int status = 0;
  HEARTH_CHECK(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? text : "";
}

}  // namespace hearth::test
