// What talaria-cvm-lab runs, apart from how its options are read: a service like talaria-cvm's with
// a mask scheme of choice, and a program of llama.cpp's in the place of llama-server.
#ifndef TALARIA_APPS_CVM_LAB_RUN_H_
#define TALARIA_APPS_CVM_LAB_RUN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/cvm/config.h"

namespace talaria {

struct LabArguments {
  std::string scheme = "lattice", identity = "any", plugin, stats;
  std::string m = "1/2";         // rows of M_pub of `published`
  std::string record;            // RECORDING; its sub-folder truth is made
  std::vector<uint32_t> groups;  // to record; empty: all
  cvm::Config config;
  uint64_t pool_batches = 0;
  size_t show_masked = 0;
  bool no_sandbox = false;
  bool batch = false;  // commands come from standard input
  std::vector<std::string> command;
};

// Runs args.command, or what standard input says (`batch`). The program's exit code; errors of
// the service, and kInternal when the program's output cannot be relied on.
Result<int> RunLab(const LabArguments& args);

}  // namespace talaria

#endif  // TALARIA_APPS_CVM_LAB_RUN_H_
