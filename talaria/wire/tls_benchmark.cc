// What TLS adds to a round trip between two threads over a Unix socket pair, and what a handshake
// costs.
#include <benchmark/benchmark.h>

#include <thread>

#include "talaria/wire/testing/tls_testing.h"
#include "talaria/wire/tls.h"

namespace talaria::wire {
namespace {

// Argument: bytes each way.
void Echo(benchmark::State& state, Transport& client, Transport& server) {
  const size_t size = static_cast<size_t>(state.range(0));
  std::vector<uint8_t> sent(size, 1), received(size);
  std::thread echo([&] {
    std::vector<uint8_t> buffer(size);
    while (server.ReceiveSome(buffer, size, 10000).ok() && server.Send({buffer}, 10000).ok()) {
    }
  });
  uint8_t value = 0;
  for (auto _ : state) {
    sent[size / 2] = ++value;
    TALARIA_CHECK(client.Send({sent}, 10000).ok());
    TALARIA_CHECK(client.ReceiveSome(received, size, 10000).ok() && received[size / 2] == value);
  }
  client.Shutdown();
  echo.join();
  state.SetBytesProcessed(state.iterations() * state.range(0) * 2);
}

void PlainRoundTrip(benchmark::State& state) {
  const PlainPair pair = MakePlainPair();
  Echo(state, *pair.client, *pair.server);
}
BENCHMARK(PlainRoundTrip)->Arg(64)->Arg(4 << 10)->Arg(64 << 10)->Arg(1 << 20)->UseRealTime();

void TlsRoundTrip(benchmark::State& state) {
  const TlsPair pair = MakeTlsPair(ClientKey(), ServerKey());
  Echo(state, *pair.client, *pair.server);
}
BENCHMARK(TlsRoundTrip)->Arg(64)->Arg(4 << 10)->Arg(64 << 10)->Arg(1 << 20)->UseRealTime();

// Both sides, with both certificates, in two threads.
void Handshake(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(MakeTlsPair(ClientKey(), ServerKey()));
}
BENCHMARK(Handshake)->UseRealTime();

void NewKey(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(TlsKey::Generate().ok());
}
BENCHMARK(NewKey);

}  // namespace
}  // namespace talaria::wire
