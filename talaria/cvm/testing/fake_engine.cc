// Test only: what llama-server is to talaria-cvm, without llama.cpp: takes the fixed argument list,
// says that all matrices landed, answers /health and, through one call of the channel,
// /v1/completions. The alias chooses how it misbehaves.
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <mutex>

#include "talaria/cvm/gateway_testing.h"
#include "talaria/engine/channel.h"

namespace talaria::cvm {
namespace {

std::string Http(std::string_view status, std::string_view body) {
  return "HTTP/1.1 " + std::string(status) +
         "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

std::string Argument(int argc, char** argv, const char* name) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  return "";
}

int Main(int argc, char** argv) {
  const std::string how = Argument(argc, argv, "--alias");
  // _exit: a leak checker at exit would need what the sandbox refuses.
  if (how == "exits") _exit(7);
  auto channel = engine::ChannelClient::Connect(engine::kSharedMemoryFd, engine::kSocketFd);
  if (!channel.ok()) _exit(8);
  char magic[4] = {};
  if (pread(engine::kSkeletonFd, magic, sizeof magic, 0) <= 0)
    _exit(9);  // the skeleton is there and readable
  if (how != "never lands") (*channel)->Notify(engine::ChildEvent::kAllMatricesLanded);
  std::mutex mutex;  // the channel is for one thread at a time
  testing::FakeServer server(Argument(argc, argv, "--host"), [&](testing::RawStream& stream,
                                                                 const std::string& request) {
    if (request.starts_with("GET /health")) {
      (void)stream.Write(Http("200 OK", "{}"));
      return;
    }
    if (request.find("die now") != std::string::npos) _exit(3);
    const std::lock_guard lock(mutex);
    const uint32_t d = (*channel)->model().groups[0].d;
    for (uint32_t j = 0; j < d; ++j) (*channel)->Input()[j] = static_cast<float>(j) / 64.0f - 1.0f;
    const engine::CallStatus status = (*channel)->Call(0, 1);
    if (status != engine::CallStatus::kOk) {
      (void)stream.Write(
          Http("500 Internal Server Error", R"({"error":{"message":"Compute error."}})"));
      return;
    }
    char text[64];
    std::snprintf(text, sizeof text, "%.9g", static_cast<double>((*channel)->Output(0, 1, 0)[0]));
    (void)stream.Write(Http("200 OK", R"({"choices":[{"text":")" + std::string(text) +
                                          R"("}],"usage":{"completion_tokens":1}})"));
  });
  for (;;) pause();
}

}  // namespace
}  // namespace talaria::cvm

int main(int argc, char** argv) { return talaria::cvm::Main(argc, argv); }
