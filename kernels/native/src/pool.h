// Threads of one engine. Callers share them: each works on its own tasks, free threads help whoever has some left.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace minet {

class Pool {
 public:
  // task, and the number of the thread that runs it: 0 is the caller.
  using Work = std::function<void(ptrdiff_t task, unsigned thread)>;

  // Throws std::system_error if the system gives no threads.
  explicit Pool(unsigned threads);
  ~Pool();
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;

  unsigned threads() const { return unsigned(helpers_.size()) + 1; }

  // Run all tasks and return when they are done; work must not throw.
  void run(ptrdiff_t tasks, const Work &work);

 private:
  struct Job {
    const Work &work;
    const ptrdiff_t tasks;
    std::atomic<ptrdiff_t> next{0};
    std::atomic<int> helping{0};
  };

  void help(unsigned thread);
  Job *open_job();
  void stop();

  std::mutex mutex_;
  std::condition_variable changed_, finished_;
  std::atomic<size_t> posted_{0};
  std::vector<Job *> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace minet
