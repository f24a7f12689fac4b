#include <signal.h>

#include <memory>
#include <thread>

#include "apps/cloud_commands.h"
#include "talaria/base/log.h"

namespace talaria {

Status RunServe(const cloud::ServerOptions& options) {
  // Signals are taken by one thread, so that Stop() runs outside of a handler. Blocked before any
  // thread is started.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);  // ends the waiting thread when Run() ends by itself
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  TALARIA_ASSIGN_OR_RETURN(const std::unique_ptr<cloud::Server> server,
                           cloud::Server::Create(options));
  std::thread waiter([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal != SIGUSR1) LogInfo("stopping");
    server->Stop();
  });
  LogInfo("serving " + options.store + " at " + server->address());
  const Status status = server->Run();
  pthread_kill(waiter.native_handle(), SIGUSR1);
  waiter.join();
  return status;
}

}  // namespace talaria
