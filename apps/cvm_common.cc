#include "apps/cvm_common.h"

#include <utility>

#include "talaria/base/log.h"

namespace talaria {
namespace {

// The last one ends the waiting thread when nothing was signalled.
sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&signals, signal);
  return signals;
}

}  // namespace

Status CheckSimulatedTee([[maybe_unused]] bool requested) {
#ifndef TALARIA_SIMULATED_TEE
  if (requested)
    return Status(Code::kUnsupported, "this program was built without the simulated TEE");
#endif
  return OkStatus();
}

void WarnOfSimulatedTee() {
  LogWarning(
      std::string("INSECURE: ") + kInsecureFlag +
      " is set. The evidence is simulated: whoever runs this machine can read prompts and answers, "
      "and anybody can imitate it.");
  LogWarning(std::string("INSECURE: ") + kInsecureFlag +
             " also lets memory stay unlocked, swap stay on and the sandbox be missing, each with "
             "a warning.");
}

void SignalWaiter::Block() {
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

SignalWaiter::SignalWaiter(std::function<void()> on_signal) {
  thread_ = std::thread([on_signal = std::move(on_signal)] {
    const sigset_t signals = Signals();
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal == SIGUSR1) return;
    LogInfo("stopping");
    on_signal();
  });
}

SignalWaiter::~SignalWaiter() {
  pthread_kill(thread_.native_handle(), SIGUSR1);
  thread_.join();
}

void StepProgress::operator()(std::string_view step, uint64_t done, uint64_t total) {
  if (step != step_ || !progress_) {
    step_ = step;
    done_ = 0;
    progress_.reset();  // ends the last step's line
    progress_ = std::make_unique<Progress>(step, total);
  }
  if (done > done_) progress_->Advance(done - done_);
  done_ = done;
  if (done >= total) progress_.reset();
}

}  // namespace talaria
