// talaria-engine-host [--zeros] MODEL.gguf HOLLOW.gguf PLUGIN -- PROGRAM ARGUMENT...
// Empties a model, serves its products itself (plain float, or zeros, to see what llama.cpp costs
// without them) and runs a stock llama.cpp program with the plug-in around it. For experiments;
// never installed.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "talaria/engine/testing/stock_program.h"
#include "talaria/engine/testing/tiny_model.h"

int main(int argc, char** argv) {
  using namespace talaria;
  using namespace talaria::engine;
  std::vector<std::string> words(argv + 1, argv + argc);
  const bool zeros = !words.empty() && words[0] == "--zeros";
  if (zeros) words.erase(words.begin());
  if (words.size() < 5 || words[3] != "--") {
    std::fprintf(stderr,
                 "usage: talaria-engine-host [--zeros] MODEL.gguf HOLLOW.gguf PLUGIN -- PROGRAM "
                 "ARGUMENT...\n");
    return 2;
  }
  Result<testing::HollowModel> model = testing::MakeHollow(words[0], words[1]);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    return 1;
  }
  auto server = ChannelServer::Create(model->channel, size_t{256} << 20);
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().ToString().c_str());
    return 1;
  }
  uint64_t calls = 0, rows = 0;
  const ChannelServer::Handler floats = testing::FloatProducts(*model);
  testing::StockProgram program;
  program.path = words[4];
  program.arguments.assign(words.begin() + 5, words.end());
  program.plugin = words[2];
  program.inherit_output = true;
  program.timeout_s = 3600;
  Result<testing::StockResult> result =
      testing::RunStockProgram(program, server->get(), [&](const CallView& call) {
        ++calls;
        rows += call.rows;
        return zeros ? CallStatus::kOk : floats(call);
      });
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    return 1;
  }
  std::fprintf(stderr, "exit code %d, %llu calls, %llu rows, %zu events, channel: %s\n",
               result->exit_code, static_cast<unsigned long long>(calls),
               static_cast<unsigned long long>(rows), result->events.size(),
               result->served.ToString().c_str());
  return result->exit_code;
}
