// Runs a stock llama.cpp program with the plug-in, as the launcher does, but without a sandbox and
// with its output kept.
#ifndef TALARIA_ENGINE_TESTING_STOCK_PROGRAM_H_
#define TALARIA_ENGINE_TESTING_STOCK_PROGRAM_H_

#include <string>
#include <utility>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/engine/channel.h"

namespace talaria::engine::testing {

struct StockProgram {
  std::string path;
  std::vector<std::string> arguments;            // without argv[0]
  std::string plugin;                            // GGML_BACKEND_PATH, or empty
  std::vector<std::pair<int, int>> descriptors;  // further ones: (ours, the child's number)
  bool inherit_output = false;
  int timeout_s = 120;
};

struct StockResult {
  int exit_code = -1;  // or 128 + signal; 128 + SIGKILL after the time-out
  std::string out, err;
  // Of the channel; empty and ok without a server.
  Status served;
  std::vector<ChildEvent> events;
};

// `server` may be null: no channel is inherited then. Blocks; serves in a thread of its own with
// `handler`. kIo.
Result<StockResult> RunStockProgram(const StockProgram& program, ChannelServer* server,
                                    const ChannelServer::Handler& handler);

}  // namespace talaria::engine::testing

#endif  // TALARIA_ENGINE_TESTING_STOCK_PROGRAM_H_
