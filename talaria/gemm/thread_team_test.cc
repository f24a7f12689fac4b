#include "talaria/gemm/thread_team.h"

#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace talaria::gemm {
namespace {

using namespace std::chrono_literals;

double ProcessCpuSeconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The pieces of a job, counted: each taken once, and all written before Run returns.
void RunCounted(ThreadTeam& team, size_t pieces, bool wake) {
  std::vector<int> done(pieces, 0);  // not atomic: the team's own ordering must make this safe
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i = next.fetch_add(1); i < pieces; i = next.fetch_add(1)) ++done[i];
  };
  team.impl().Run(work, wake);
  for (size_t i = 0; i < pieces; ++i) ASSERT_EQ(done[i], 1) << i;
}

TEST(ThreadTeam, EveryPieceOnceInManyJobs) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadTeam team(threads);
    EXPECT_EQ(team.size(), threads);
    for (size_t job = 0; job < 300; ++job) RunCounted(team, job % 17, job % 3 != 0);
  }
}

TEST(ThreadTeam, WorksAfterItsHelpersWentToSleep) {
  ThreadTeam team(3);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(5ms);  // 100 times the spin
    RunCounted(team, 50, true);
    std::this_thread::sleep_for(5ms);
    RunCounted(team, 50, false);
  }
}

TEST(ThreadTeam, HelpersTakePartWhenWoken) {
  ThreadTeam team(3);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  const auto end = std::chrono::steady_clock::now() + 30s;
  // The caller's share lasts until both helpers came (the second condition is for a machine that
  // never runs them).
  auto work = [&] {
    {
      std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
    }
    for (size_t n = 0; n < 3 && std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(1ms)) {
      std::lock_guard lock(mutex);
      n = seen.size();
    }
  };
  std::this_thread::sleep_for(5ms);
  team.impl().Run(work, true);
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_TRUE(seen.contains(std::this_thread::get_id()));
}

TEST(ThreadTeam, WaitsForAHelperThatIsStillInside) {
  ThreadTeam team(2);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> entered{false};
  int slow_result = 0;  // written by the helper only
  auto work = [&] {
    if (std::this_thread::get_id() == caller) {
      while (!entered.load()) std::this_thread::yield();
    } else {
      entered.store(true);
      std::this_thread::sleep_for(20ms);  // past the caller's spin: it sleeps and is woken
      slow_result = 7;
    }
  };
  team.impl().Run(work, true);
  EXPECT_EQ(slow_result, 7);
}

TEST(ThreadTeam, SleepsWhenIdle) {
  ThreadTeam team(4);
  RunCounted(team, 10, true);
  std::this_thread::sleep_for(20ms);
  const double before = ProcessCpuSeconds();
  std::this_thread::sleep_for(300ms);
  EXPECT_LT(ProcessCpuSeconds() - before, 0.1);  // three spinning helpers would take 0.3 to 0.9
}

TEST(ThreadTeam, DiesWhileIdleBusyOrNeverUsed) {
  for (int i = 0; i < 50; ++i) {
    ThreadTeam unused(3);
    ThreadTeam used(3);
    RunCounted(used, 5, true);
  }
}

}  // namespace
}  // namespace talaria::gemm
