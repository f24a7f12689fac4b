// What talaria-cvm and the laboratory's program have in common on the command line's side.
#ifndef TALARIA_APPS_CVM_COMMON_H_
#define TALARIA_APPS_CVM_COMMON_H_

#include <signal.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "talaria/base/progress.h"
#include "talaria/base/result.h"

namespace talaria {

inline constexpr const char* kInsecureFlag = "--insecure-simulated-tee";

// kUnsupported when the simulated TEE is asked for in a build without it.
Status CheckSimulatedTee(bool requested);
void WarnOfSimulatedTee();

// SIGINT and SIGTERM are taken by one thread, so that stopping runs outside of a handler. Block()
// first, before any thread or process is started: children inherit it, and a Ctrl-C on the terminal
// then reaches them only through us.
class SignalWaiter {
 public:
  static void Block();
  explicit SignalWaiter(std::function<void()> on_signal);
  ~SignalWaiter();

 private:
  std::thread thread_;
};

// A bar, or JSON lines, per step.
class StepProgress {
 public:
  void operator()(std::string_view step, uint64_t done, uint64_t total);

 private:
  std::string step_;
  uint64_t done_ = 0;
  std::unique_ptr<Progress> progress_;
};

}  // namespace talaria

#endif  // TALARIA_APPS_CVM_COMMON_H_
