// parallel_for: every task once, from several threads at a time, inside another loop, and after a fork.
#include "cpu/parallel.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/expect.h"

namespace privkernels {
namespace {

// Whether each of `tasks` tasks ran exactly once, by a worker that exists.
bool every_task_once(int64_t tasks, int threads) {
  std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
  std::atomic<bool> known{true};
  parallel_for(tasks, threads, [&](int worker, int64_t task) {
    if (worker < 0 || worker >= threads || task < 0 || task >= tasks) known = false;
    ++runs[static_cast<size_t>(task)];
  });
  for (const std::atomic<int>& count : runs) known = known && count == 1;
  return known;
}

void check_counts() {
  for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
    for (const int threads : {1, 2, 5, 40})
      expect(every_task_once(tasks, threads), "every task runs once", "one caller");
  }
}

void check_callers() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 6; ++i) {
    callers.emplace_back([&wrong, i] {
      for (int round = 0; round < 200; ++round) wrong += every_task_once(1 + round % 17, 2 + i % 3) ? 0 : 1;
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(wrong == 0, "every task runs once", "six callers");
}

void check_nested() {
  std::atomic<int> wrong{0};
  parallel_for(20, 3, [&](int, int64_t) { wrong += every_task_once(50, 3) ? 0 : 1; });
  expect(wrong == 0, "every task runs once", "a loop in a loop");
}

void check_fork() {
  const pid_t child = fork();
  if (child == 0) _exit(every_task_once(500, 4) ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "every task runs once", "a forked child");
  expect(every_task_once(500, 4), "every task runs once", "its parent");
}

}  // namespace
}  // namespace privkernels

int main() {
  privkernels::check_counts();
  privkernels::check_callers();
  privkernels::check_nested();
  privkernels::check_fork();
  return privkernels::verdict();
}
