// One round trip through the channel, between two threads: spinning, and sleeping on the futex.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "talaria/engine/channel.h"

namespace talaria::engine {
namespace {

// Arguments: spin of both sides in microseconds; the handler's work and the pause between calls, in
// microseconds.
void RoundTrip(benchmark::State& state) {
  const auto spin = static_cast<uint32_t>(state.range(0));
  const auto busy = [](int64_t us) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(us);
    while (std::chrono::steady_clock::now() < end) {
    }
  };
  auto server = ChannelServer::Create({{{576, {{"a", 0, 576}}}}}, 1 << 20,
                                      {.parent_spin_us = spin, .child_spin_us = spin});
  if (!server.ok()) std::abort();
  auto client = (*server)->ConnectInProcess();
  if (!client.ok()) std::abort();
  const int64_t work = state.range(1), pause = state.range(2);
  std::thread thread([&] {
    const Status status = (*server)->Serve(
        [&](const CallView&) {
          if (work > 0) busy(work);
          return CallStatus::kOk;
        },
        [](ChildEvent) {});
    if (status.code() != Code::kCancelled) std::abort();
  });
  for (auto _ : state) {
    if (pause > 0) busy(pause);
    if ((*client)->Call(0, 1) != CallStatus::kOk) std::abort();
  }
  (*server)->Stop();
  thread.join();
}
BENCHMARK(RoundTrip)
    ->ArgNames({"spin", "work", "pause"})
    ->Args({100, 0, 0})
    ->Args({0, 0, 0})
    ->Args({40, 20, 5})
    ->Args({40, 100, 5})
    ->Args({40, 100, 100})
    ->Args({0, 100, 100})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace talaria::engine
