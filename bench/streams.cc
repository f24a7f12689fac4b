#include "bench/streams.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/http_connection.h"
#include "bench/provider.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
using Kind = StreamWork::Kind;
constexpr int kBatchRows = 256;
constexpr int kConnectTimeoutMs = 10'000;
constexpr std::chrono::seconds kLoadTime{300};
// Token numbers that every vocabulary has; which ones is all the same to the time.
constexpr int kFirstToken = 3, kTokenNumbers = 250;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string SocketOf(const Setting& setting) { return setting.work + "/streams.sock"; }

HttpConnection Connection(const std::string& socket) {
  return HttpConnection([socket]() -> Result<std::unique_ptr<wire::Transport>> {
    TALARIA_ASSIGN_OR_RETURN(const wire::Endpoint endpoint,
                             wire::Endpoint::Parse("unix:" + socket));
    return wire::Connect(endpoint, kConnectTimeoutMs);
  });
}

// As talaria-cvm starts it, with as many slots as there are streams.
std::vector<std::string> ServerArguments(const StreamWork& work, const std::string& socket,
                                         int threads) {
  const std::string t = std::to_string(threads);
  const int context = work.streams * (work.tokens + kBatchRows);
  return {"--host",
          socket,
          "-c",
          std::to_string(context),
          "-np",
          std::to_string(work.streams),
          "-t",
          t,
          "-tb",
          t,
          "-b",
          "512",
          "-ub",
          "512",
          "--no-warmup",
          "--offline",
          "--no-ui",
          "--no-slots",
          "--no-cache-prompt",
          "--slot-prompt-similarity",
          "0",
          "--cache-ram",
          "0",
          "--ctx-checkpoints",
          "0",
          "--log-disable"};
}

Status Complete(HttpConnection& connection, int prompt_tokens, int generate, int seed) {
  Json prompt = Json::array();
  for (int i = 0; i < prompt_tokens; ++i)
    prompt.push_back(kFirstToken + (seed * 31 + i * 7) % kTokenNumbers);
  const Json body = {{"prompt", prompt},      {"n_predict", generate}, {"temperature", 0},
                     {"ignore_eos", true},    {"cache_prompt", false}, {"seed", 1},
                     {"return_tokens", false}};
  TALARIA_ASSIGN_OR_RETURN(const auto answer,
                           connection.Ask({"POST", "/completion", body.dump(), ""}));
  const Json json = Json::parse(answer.body, nullptr, false);
  if (!json.is_object() || json.value("tokens_predicted", 0) != generate ||
      json.value("tokens_evaluated", 0) != prompt_tokens) {
    return Status(Code::kInternal,
                  "llama-server answered something else: " + answer.body.substr(0, 300));
  }
  return OkStatus();
}

// Up, and has answered once, as talaria-cvm asks before it says that it is ready.
Status AwaitServer(const std::string& socket) {
  const auto end = Clock::now() + kLoadTime;
  for (;;) {
    HttpConnection connection = Connection(socket);
    const auto health = connection.Ask({"GET", "/health", "", ""});
    if (health.ok()) break;
    if (Clock::now() > end) return health.status().Annotate("llama-server did not start");
    usleep(20000);
  }
  HttpConnection connection = Connection(socket);
  return Complete(connection, 1, 1, 0);
}

// All streams at once; the first failure of any.
Status Ask(const std::string& socket, const StreamWork& work) {
  std::vector<Status> results(static_cast<size_t>(work.streams), OkStatus());
  std::vector<std::thread> threads;
  for (int stream = 0; stream < work.streams; ++stream) {
    threads.emplace_back([&, stream] {
      HttpConnection connection = Connection(socket);
      Status& result = results[static_cast<size_t>(stream)];
      const bool decode = work.kind == Kind::kDecode;
      for (int i = 0; i < work.requests && result.ok(); ++i) {
        result = Complete(connection, decode ? 1 : work.tokens, decode ? work.tokens : 1,
                          i * work.streams + stream);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Status& result : results) TALARIA_RETURN_IF_ERROR(result);
  return OkStatus();
}

// llama-server on the masked model, ready.
Status StartMasked(const Setting& setting, Laboratory& lab, const StreamWork& work) {
  const std::string socket = SocketOf(setting);
  std::filesystem::remove(socket);
  std::vector<std::string> arguments = ServerArguments(work, socket, 1);
  arguments.insert(arguments.begin(), "llama-server");
  TALARIA_RETURN_IF_ERROR(lab.StartServer(arguments));
  return AwaitServer(socket);
}

double Tokens(const StreamWork& work) {
  return static_cast<double>(work.streams) * work.requests * work.tokens;
}

}  // namespace

StreamWork SustainedStreams(Kind kind, int streams, int pool_batches, int prompt_tokens) {
  const int rows = 2 * kBatchRows * pool_batches;
  const auto shared = [](int all, int parts) { return (all + parts - 1) / parts; };
  if (kind == Kind::kDecode) return {kind, streams, 1, shared(rows, streams)};
  return {kind, streams, shared(rows, streams * prompt_tokens), prompt_tokens};
}

Result<Speed> MeasurePlainStreams(const Setting& setting, const StreamWork& work, int threads) {
  const std::string socket = SocketOf(setting);
  std::filesystem::remove(socket);
  std::vector<std::string> arguments = ServerArguments(work, socket, threads);
  arguments.insert(arguments.begin(),
                   {setting.llama + "/plain/bin/llama-server", "-m", setting.model});
  TALARIA_ASSIGN_OR_RETURN(const auto server, Launch(arguments, setting.work + "/plain.log"));
  TALARIA_RETURN_IF_ERROR(AwaitServer(socket));
  const double cpu = server->Measure().cpu_seconds;
  const auto start = Clock::now();
  TALARIA_RETURN_IF_ERROR(Ask(socket, work));
  return Speed{Tokens(work) / Since(start), (server->Measure().cpu_seconds - cpu) / Tokens(work)};
}

Status MeasureMaskedStreams(const Setting& setting, Laboratory& lab, const StreamWork& work,
                            Sample& sample) {
  TALARIA_RETURN_IF_ERROR(StartMasked(setting, lab, work));
  lab.BeginTimed();
  const auto start = Clock::now();
  TALARIA_RETURN_IF_ERROR(Ask(SocketOf(setting), work));
  const double seconds = Since(start);
  TALARIA_ASSIGN_OR_RETURN(const MaskedRun run, lab.EndServer());
  FillSample(run, Tokens(work), seconds + run.refill_seconds, sample);
  return OkStatus();
}

Result<double> MeasureMaskedMemory(const Setting& setting, Laboratory& lab,
                                   const StreamWork& work) {
  TALARIA_RETURN_IF_ERROR(StartMasked(setting, lab, work));
  lab.BeginTimed();
  TALARIA_RETURN_IF_ERROR(Ask(SocketOf(setting), work));
  const double mib = lab.ResidentMib();
  TALARIA_RETURN_IF_ERROR(lab.EndServer().status());
  return mib;
}

}  // namespace talaria::bench
