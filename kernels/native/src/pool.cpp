#include "pool.h"

#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace minet {
namespace {

// How long a thread looks for the next operation before it sleeps: they follow each other within microseconds.
constexpr int patience = 2000;

constexpr unsigned most_stretches = 16;

}  // namespace

struct Pool::Team {
  Team(unsigned threads, const std::atomic<unsigned> &callers);
  ~Team() { stop(); }

  void run(ptrdiff_t tasks, const Work &work);

 private:
  // Each thread begins with its own stretch of the tasks, the same of every job: what an operation reads is mostly what
  // this core wrote in the one before, and is still in its cache. Who is done takes from the stretches of others.
  class Job {
   public:
    Job(const Work &work, ptrdiff_t tasks, unsigned threads)
        : work_(work), stretches_(std::min(threads, most_stretches)) {
      for (unsigned i = 0; i < stretches_; ++i) {
        stretch_[i].next = tasks * i / stretches_;
        stretch_[i].end = tasks * (i + 1) / stretches_;
      }
    }

    bool open() const {
      const auto has_tasks = [](const Stretch &one) { return one.next.load() < one.end; };
      return std::any_of(stretch_, stretch_ + stretches_, has_tasks);
    }

    // Run a task, if one is left.
    bool run_one(unsigned thread) {
      for (unsigned i = 0; i < stretches_; ++i) {
        Stretch &one = stretch_[(thread + i) % stretches_];
        if (one.next.load() >= one.end) continue;
        const ptrdiff_t task = one.next.fetch_add(1);
        if (task >= one.end) continue;
        work_(task, thread);
        return true;
      }
      return false;
    }

    std::atomic<int> helping{0};

   private:
    struct alignas(64) Stretch {
      std::atomic<ptrdiff_t> next;
      ptrdiff_t end;
    };

    const Work &work_;
    const unsigned stretches_;
    Stretch stretch_[most_stretches];
  };

  // A caller between two operations is at work, too.
  unsigned at_work() const { return callers_.load() + helping_.load(); }
  void help(unsigned thread);
  Job *open_job();
  void stop();

  std::mutex mutex_;
  std::condition_variable changed_, finished_;
  std::atomic<size_t> posted_{0};
  std::vector<Job *> jobs_;
  bool stopping_ = false;
  const unsigned threads_;
  const std::atomic<unsigned> &callers_;
  std::atomic<unsigned> helping_{0};
  std::vector<std::thread> helpers_;
};

Pool::Pool(unsigned threads)
    : threads_(std::max(threads, 1u)),
      process_(getpid()),
      team_(threads_ > 1 ? std::make_unique<Team>(threads_, callers_) : nullptr) {}

Pool::Caller::Caller(Pool &pool) : pool_(pool) { pool_.callers_.fetch_add(1); }

Pool::Caller::~Caller() { pool_.callers_.fetch_sub(1); }

Pool::~Pool() {
  // The helpers are in the process that made them, and a lock or condition here may still be counting on them.
  if (forked()) (void)team_.release();
}

bool Pool::forked() const { return getpid() != process_; }

void Pool::run(ptrdiff_t tasks, const Work &work) {
  // As many callers as threads: nobody is left to help, and nobody is called.
  if (team_ && tasks > 1 && callers_.load() < threads_ && !forked()) return team_->run(tasks, work);
  for (ptrdiff_t task = 0; task < tasks; ++task) work(task, 0);
}

Pool::Team::Team(unsigned threads, const std::atomic<unsigned> &callers) : threads_(threads), callers_(callers) {
  helpers_.reserve(threads - 1);
  try {
    for (unsigned thread = 1; thread < threads; ++thread) helpers_.emplace_back([this, thread] { help(thread); });
  } catch (...) {
    stop();
    throw;
  }
}

void Pool::Team::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    posted_.fetch_add(1);
  }
  changed_.notify_all();
  for (std::thread &helper : helpers_) helper.join();
  helpers_.clear();
}

void Pool::Team::run(ptrdiff_t tasks, const Work &work) {
  Job job(work, tasks, threads_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
    posted_.fetch_add(1);
  }
  changed_.notify_all();
  while (job.run_one(0)) {
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
  }
  for (int i = 0; i < patience && job.helping.load(); ++i) _mm_pause();
  // Also after the wait above was enough: a helper lets go of the job under this lock.
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, [&] { return job.helping.load() == 0; });
}

Pool::Team::Job *Pool::Team::open_job() {
  for (Job *job : jobs_)
    if (job->open()) return job;
  return nullptr;
}

void Pool::Team::help(unsigned thread) {
  size_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    if (Job *job = at_work() < threads_ ? open_job() : nullptr) {
      job->helping.fetch_add(1);
      helping_.fetch_add(1);
      lock.unlock();
      while (at_work() <= threads_ && job->run_one(thread)) {
      }
      helping_.fetch_sub(1);
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
