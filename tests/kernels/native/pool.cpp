// Callers that stay inside their calls, and how many threads are at work for them at most.
//
// Usage: pool THREADS CALLERS. Prints the largest number of tasks that ran at the same time, how many helpers ran some,
// and the share of tasks, in percent, that ran in the thread whose stretch of the job they are.
#include "pool.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

int main(int, char **arguments) {
  minet::Pool pool(static_cast<unsigned>(std::atoi(arguments[1])));
  const int callers = std::atoi(arguments[2]);
  constexpr int operations = 20, tasks = 16;
  std::atomic<int> inside{0}, working{0}, most{0}, own{0};
  std::atomic<unsigned> helpers{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < callers; ++i)
    threads.emplace_back([&] {
      const minet::Pool::Caller caller(pool);
      ++inside;
      while (inside < callers) std::this_thread::yield();
      for (int operation = 0; operation < operations; ++operation)
        pool.run(tasks, [&](ptrdiff_t task, unsigned thread) {
          const int now = ++working;
          for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
          }
          if (thread) helpers |= 1u << thread;
          if (task * pool.threads() / tasks == thread) ++own;
          std::this_thread::sleep_for(std::chrono::microseconds(200));
          --working;
        });
      --inside;
      // Callers that left would make room for helpers.
      while (inside > 0) std::this_thread::yield();
    });
  for (std::thread &thread : threads) thread.join();
  std::printf("%d %d %d\n", most.load(), __builtin_popcount(helpers), 100 * own / (callers * operations * tasks));
  return 0;
}
