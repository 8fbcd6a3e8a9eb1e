// The threads behind parallel_for.
#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace privkernels {
namespace {

// One call of run_tasks. A thread that comes late finds no task left, and touches neither context nor task.
struct Job {
  int64_t tasks;
  int workers;
  void (*task)(const void*, int, int64_t);
  const void* context;
  std::atomic<int> joined{1};  // worker 0 is the caller
  std::atomic<int64_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable finished;

  void work(int worker) {
    for (int64_t number = next++; number < tasks; number = next++) {
      task(context, worker, number);
      if (++done == tasks) {
        const std::lock_guard<std::mutex> lock(mutex);
        finished.notify_all();
      }
    }
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [&] { return done == tasks; });
  }
};

struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::shared_ptr<Job>> wanted;  // a job once for each thread that may help with it
  int threads = 0;

  void help() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return !wanted.empty(); });
      const std::shared_ptr<Job> job = wanted.front();
      wanted.pop_front();
      lock.unlock();
      if (const int worker = job->joined++; worker < job->workers) job->work(worker);
      lock.lock();
    }
  }

  void offer(const std::shared_ptr<Job>& job) {
    const std::lock_guard<std::mutex> lock(mutex);
    for (int i = 1; i < job->workers; ++i) wanted.push_back(job);
    try {
      while (threads < job->workers - 1) {
        std::thread([this] { help(); }).detach();
        ++threads;
      }
    } catch (const std::system_error&) {
    }
    wake.notify_all();
  }

  void withdraw(const std::shared_ptr<Job>& job) {
    const std::lock_guard<std::mutex> lock(mutex);
    wanted.erase(std::remove(wanted.begin(), wanted.end(), job), wanted.end());
  }
};

// Never destroyed: its threads wait in it until the process ends. A forked child has none of them, and gets a new one.
Pool* pool = nullptr;

void make_pool() {
  pool = new Pool;
  pthread_atfork([] { pool->mutex.lock(); }, [] { pool->mutex.unlock(); }, [] { pool = new Pool; });
}

}  // namespace

void run_tasks(int64_t tasks, int workers, void (*task)(const void*, int, int64_t), const void* context) {
  static std::once_flag once;
  std::call_once(once, make_pool);
  const std::shared_ptr<Job> job = std::make_shared<Job>();
  job->tasks = tasks, job->workers = workers, job->task = task, job->context = context;
  pool->offer(job);
  job->work(0);
  pool->withdraw(job);
  job->wait();
}

}  // namespace privkernels
