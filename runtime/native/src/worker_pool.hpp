// Threads that wait between calls and run one function on each part of a task. Starting a task
// allocates nothing.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace fundus {

class WorkerPool {
 public:
  // `parts` of every task, of which the calling thread runs one itself.
  explicit WorkerPool(int parts);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int parts() const noexcept { return static_cast<int>(threads_.size()) + 1; }

  // Calls task(part) for every part and returns when all have. The task must not throw.
  template <class Task>
  void run(Task& task) {
    run_erased([](void* context, int part) { (*static_cast<Task*>(context))(part); }, &task);
  }

 private:
  using Function = void (*)(void* context, int part);
  void run_erased(Function function, void* context);
  void work(int part);
  void stop() noexcept;

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable begun_, done_;
  Function function_ = nullptr;
  void* context_ = nullptr;
  unsigned long task_number_ = 0;
  int running_ = 0;
  bool stopping_ = false;
};

} // namespace fundus
