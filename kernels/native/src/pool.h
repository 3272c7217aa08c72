// Threads of one engine. Callers share them: each works on its own tasks, free threads help whoever has some left.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>

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

  unsigned threads() const { return threads_; }

  // Run all tasks and return when they are done; work must not throw. In a forked process the caller is alone.
  void run(ptrdiff_t tasks, const Work &work);

 private:
  struct Team;

  bool forked() const;

  const unsigned threads_;
  const pid_t process_;
  std::unique_ptr<Team> team_;
};

}  // namespace minet
