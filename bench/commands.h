// The benchmark's sub-commands.
#ifndef TALARIA_BENCH_COMMANDS_H_
#define TALARIA_BENCH_COMMANDS_H_

#include <string>
#include <vector>

#include "bench/setting.h"
#include "talaria/base/result.h"

namespace talaria::bench {

struct EndToEndOptions {
  Setting setting;
  std::string json;  // file for the results, or empty
  int pairs = 7;
  int prompt = 512;  // tokens per prompt
  int streams = 4;   // at a time, in the rows of parallel streams; 0: without these
};
// Alternates plain llama.cpp and Talaria on the same model and cores; prints a table and writes
// JSON.
Status EndToEnd(const EndToEndOptions& options);

struct LayerOptions {
  Setting setting;  // model and store are this command's own
  std::string json;
  std::string shape = "8b";
  int pairs = 7;
  int prompt = 512;
};
// One layer with a large model's shapes: the same pairs and the same table.
Status Layer(const LayerOptions& options);

struct GoalsOptions {
  Setting setting;  // attested TLS, whatever the channel of a row is
  std::string json;
  int pairs = 7;  // and runs of every other row
  bool quick = false;
  std::vector<std::string> only, without;  // rows, as in bench/goals.h
};
// Every goal of bench/goals.h, measured by the code of the other sub-commands; prints the table and
// writes JSON. The exit code. kInvalidArgument: rows that there are not.
Result<int> MeasureGoals(const GoalsOptions& options);
extern const char* const kGoalsFooter;  // of --help

struct FidelityOptions {
  Setting setting;
  std::string text;
  std::string json;
  int chunks = 20;
};
// Perplexity of plain llama.cpp and of Talaria on the same text.
Status Fidelity(const FidelityOptions& options);

struct SchemesOptions {
  Setting setting;
  std::string json;
  int runs = 3;
};
// The mask of this project, the one that was published, and none, in turns: speed, CPU of the CVM,
// hints and traffic. Prints a table and writes JSON.
Status Schemes(const SchemesOptions& options);

struct ConnectionsOptions {
  Setting setting;
  std::string json;
  std::string device = "cpu";  // of talaria-cloud serve
  int connections = 32;
  int cvms = 0;  // real ones among them
  int rows = 1;  // of a call
  double seconds = 10;
  int batch_window_us = 0;
  bool misbehave = false;
};
// Records a CVM, then: one connection that replays its masked rows, then many, then real CVMs among
// them, then with clients that misbehave. Every answer is compared; kInternal when one is wrong or
// a connection was lost.
Status Connections(const ConnectionsOptions& options);

#ifdef TALARIA_SIMULATED_TEE
struct AttestOptions {
  Setting setting;
  std::string json;
  int rounds = 200;
};
// What attestation costs: the handshake beside TLS alone, and requests through `talaria proxy`
// beside requests to the engine itself. Prints tables and writes JSON.
Status Attest(const AttestOptions& options);
#endif

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_COMMANDS_H_
