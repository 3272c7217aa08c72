#include "pool.h"

#include <immintrin.h>

#include <algorithm>

namespace minet {
namespace {

// How long a thread looks for the next operation before it sleeps: they follow each other within microseconds.
constexpr int patience = 2000;

}  // namespace

Pool::Pool(unsigned threads) {
  helpers_.reserve(threads);
  try {
    for (unsigned thread = 1; thread < threads; ++thread) helpers_.emplace_back([this, thread] { help(thread); });
  } catch (...) {
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    posted_.fetch_add(1);
  }
  changed_.notify_all();
  for (std::thread &helper : helpers_) helper.join();
  helpers_.clear();
}

void Pool::run(ptrdiff_t tasks, const Work &work) {
  if (helpers_.empty() || tasks < 2) {
    for (ptrdiff_t task = 0; task < tasks; ++task) work(task, 0);
    return;
  }
  Job job{work, tasks};
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
    posted_.fetch_add(1);
  }
  changed_.notify_all();
  for (ptrdiff_t task; (task = job.next.fetch_add(1)) < tasks;) work(task, 0);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
  }
  for (int i = 0; i < patience && job.helping.load(); ++i) _mm_pause();
  // Also after the wait above was enough: a helper lets go of the job under this lock.
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, [&] { return job.helping.load() == 0; });
}

Pool::Job *Pool::open_job() {
  for (Job *job : jobs_)
    if (job->next.load() < job->tasks) return job;
  return nullptr;
}

void Pool::help(unsigned thread) {
  size_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    if (Job *job = open_job()) {
      job->helping.fetch_add(1);
      lock.unlock();
      for (ptrdiff_t task; (task = job->next.fetch_add(1)) < job->tasks;) job->work(task, thread);
      lock.lock();
      if (job->helping.fetch_sub(1) == 1) finished_.notify_all();
      continue;
    }
    seen = posted_.load();
    lock.unlock();
    for (int i = 0; i < patience && posted_.load() == seen; ++i) _mm_pause();
    lock.lock();
    changed_.wait(lock, [&] { return stopping_ || posted_.load() != seen; });
  }
}

}  // namespace minet
