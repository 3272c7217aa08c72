// Threads of one engine. Callers share them: each works on its own tasks, free threads help whoever has some left, and
// there are never more at work than cores were asked for, unless there are more callers.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>

namespace minet {

class Pool {
 public:
  // task, and the number of the thread that runs it: 0 is the caller.
  using Work = std::function<void(ptrdiff_t task, unsigned thread)>;

  // A thread inside one of the engine's calls: for as long as this lives, the helpers leave it a core.
  class Caller {
   public:
    explicit Caller(Pool &pool);
    ~Caller();
    Caller(const Caller &) = delete;
    Caller &operator=(const Caller &) = delete;

   private:
    Pool &pool_;
  };

  // Throws std::system_error if the system gives no threads.
  explicit Pool(unsigned threads);
  ~Pool();
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;

  unsigned threads() const { return threads_; }

  // Run all tasks and return when they are done; work must not throw. In a forked process the caller is alone.
  void run(ptrdiff_t tasks, const Work &work);

 private:
  struct Team;

  bool forked() const;

  const unsigned threads_;
  const pid_t process_;
  std::atomic<unsigned> callers_{0};
  std::unique_ptr<Team> team_;
};

}  // namespace minet
