// Round trips of decode-sized frames between two threads: what a product costs before anything is
// multiplied.
#include <benchmark/benchmark.h>
#include <sys/socket.h>

#include <thread>

#include "talaria/wire/connection.h"

namespace talaria::wire {
namespace {

struct Pair {
  std::unique_ptr<Connection> client, server;
};

Pair MakePair(bool tcp) {
  if (tcp) {
    auto listener = Listener::Create(Endpoint::Parse("127.0.0.1:0").value()).value();
    auto client = Connect(Endpoint::Parse(listener->address()).value(), 1000).value();
    return {std::make_unique<Connection>(std::move(client), kMaxFrameBytes),
            std::make_unique<Connection>(listener->Accept().value(), kMaxFrameBytes)};
  }
  int fds[2];
  TALARIA_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  return {std::make_unique<Connection>(TransportFromSocket(Fd(fds[0])), kMaxFrameBytes),
          std::make_unique<Connection>(TransportFromSocket(Fd(fds[1])), kMaxFrameBytes)};
}

// Arguments: bytes of the request's body, bytes of the reply's. 3,472 and 5,776: one row of
// attn_qkv of SmolLM2-135M.
void RoundTrip(benchmark::State& state, bool tcp) {
  const Pair pair = MakePair(tcp);
  const std::vector<uint8_t> request(static_cast<size_t>(state.range(0)), 1),
      reply(static_cast<size_t>(state.range(1)), 2);
  std::thread server([&] {
    for (;;) {
      const Result<Frame> frame = pair.server->Receive(0, 10000);
      if (!frame.ok() || frame->body.size() != request.size()) return;
      if (!pair.server->Send(Type::kProduct, {reply}, 10000).ok()) return;
    }
  });
  for (auto _ : state) {
    TALARIA_CHECK(pair.client->Send(Type::kMultiply, {request}, 10000).ok());
    const Result<Frame> frame = pair.client->Receive(10000);
    TALARIA_CHECK(frame.ok() && frame->body.size() == reply.size());
  }
  pair.client->Shutdown();
  server.join();
  state.SetBytesProcessed(state.iterations() * (state.range(0) + state.range(1)));
}
BENCHMARK_CAPTURE(RoundTrip, unix, false)
    ->Args({16, 16})
    ->Args({3472, 5776})
    ->Args({1 << 20, 2 << 20})
    ->UseRealTime();
BENCHMARK_CAPTURE(RoundTrip, tcp, true)
    ->Args({16, 16})
    ->Args({3472, 5776})
    ->Args({1 << 20, 2 << 20})
    ->UseRealTime();

}  // namespace
}  // namespace talaria::wire
