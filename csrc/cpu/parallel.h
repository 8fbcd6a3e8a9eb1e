// A loop over tasks on a few threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace privkernels {

// Calls body(worker, task) for every task in [0, tasks). Tasks are taken in order; which worker takes
// which one is not fixed, so a task's result must not depend on its worker. `body` must not throw.
// Where the system refuses a thread, the ones there are do all the work.
template <class Body>
void parallel_for(int64_t tasks, int threads, const Body& body) {
  const int workers = static_cast<int>(std::min<int64_t>(std::max(threads, 1), std::max<int64_t>(tasks, 1)));
  std::atomic<int64_t> next{0};
  const auto run = [&](int worker) {
    for (int64_t task = next++; task < tasks; task = next++) body(worker, task);
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(workers - 1));
  try {
    for (int worker = 1; worker < workers; ++worker) others.emplace_back(run, worker);
  } catch (const std::system_error&) {
  }
  run(0);
  for (std::thread& thread : others) thread.join();
}

}  // namespace privkernels
