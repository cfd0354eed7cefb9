#include "worker_pool.hpp"

namespace fundus {

WorkerPool::WorkerPool(int parts) {
  threads_.reserve(static_cast<std::size_t>(parts - 1));
  try {
    for (int part = 1; part < parts; ++part) threads_.emplace_back(&WorkerPool::work, this, part);
  } catch (...) {
    stop();
    throw;
  }
}

WorkerPool::~WorkerPool() {
  stop();
}

void WorkerPool::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  begun_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::run_erased(Function function, void* context) {
  if (threads_.empty()) return function(context, 0);
  {
    const std::lock_guard lock(mutex_);
    function_ = function;
    context_ = context;
    running_ = static_cast<int>(threads_.size());
    ++task_number_;
  }
  begun_.notify_all();
  function(context, 0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
}

void WorkerPool::work(int part) {
  unsigned long seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    begun_.wait(lock, [&] { return stopping_ || task_number_ != seen; });
    if (stopping_) return;
    seen = task_number_;
    lock.unlock();
    function_(context_, part);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

} // namespace fundus
