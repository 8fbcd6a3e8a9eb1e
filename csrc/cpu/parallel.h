// A loop over tasks on a few threads, which are kept between calls.
#pragma once

#include <algorithm>
#include <cstdint>

namespace privkernels {

// Calls task(context, worker, number) for every number in [0, tasks), on the caller's thread and at most workers - 1
// others. It never waits for a thread that has not begun a task: on a busy machine the caller does all the work.
void run_tasks(int64_t tasks, int workers, void (*task)(const void* context, int worker, int64_t number),
               const void* context);

// Calls body(worker, task) for every task in [0, tasks). Tasks are taken in order; which worker takes
// which one is not fixed, so a task's result must not depend on its worker. `body` must not throw.
// Where the system refuses a thread, the ones there are do all the work.
template <class Body>
void parallel_for(int64_t tasks, int threads, const Body& body) {
  const int workers = static_cast<int>(std::min<int64_t>(std::max(threads, 1), std::max<int64_t>(tasks, 1)));
  if (workers == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(0, task);
    return;
  }
  run_tasks(
      tasks, workers,
      [](const void* context, int worker, int64_t number) { (*static_cast<const Body*>(context))(worker, number); },
      &body);
}

}  // namespace privkernels
