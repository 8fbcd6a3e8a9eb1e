// The few lines of test framework that the programs of this folder need.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace privkernels {

inline int failures = 0;

inline void expect(bool condition, const char* what, const char* where) {
  if (condition) return;
  ++failures;
  std::printf("FAILED: %s (%s)\n", what, where);
}

// Prints how it went; the program's exit code.
inline int verdict() {
  std::printf("%s: %d failed\n", failures == 0 ? "passed" : "FAILED", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace privkernels
