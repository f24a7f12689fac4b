// talaria-cvm serve: the service with llama-server as its child, the gateway in front of it, and
// TLS with evidence in front of that.
//
// The gateway listens from the start, so that /healthz and /readyz answer during set-up; it lets
// requests through only after every matrix of the manifest landed in the plug-in and one real
// completion came through. Nothing is ever restarted: when the child or the session ends, /readyz
// goes down and Serve() returns.
#ifndef TALARIA_CVM_SERVE_H_
#define TALARIA_CVM_SERVE_H_

#include <functional>
#include <memory>
#include <string>

#include "talaria/base/result.h"
#include "talaria/cvm/config.h"
#include "talaria/cvm/launcher.h"
#include "talaria/cvm/service.h"

namespace talaria::cvm {

struct ServeOptions {
  Config config;
  Platform platform;
  // Called once, when requests are let through; `address` is where.
  std::function<void(const std::string& address, const model::Manifest&)> on_ready;
  std::function<void(std::string_view step, uint64_t done, uint64_t total)> on_progress = {};
};

class Server {
 public:
  // Listens; starts nothing else. kInvalidArgument, kNotFound, kIo.
  static Result<std::unique_ptr<Server>> Create(ServeOptions options,
                                                std::unique_ptr<Launcher> launcher);
  virtual ~Server() = default;
  // Until Stop() (kCancelled), the end of the session (kSessionEnded) or of the engine
  // (kUnavailable).
  virtual Status Run() = 0;
  virtual void Stop() = 0;  // any thread
};

// What the configuration asks of this machine, for --check-config: the plan's numbers, one per
// line, and whether they fit.
struct ServePlan {
  std::string text;
  Status fits;  // kResourceExhausted with the numbers
};
// Asks the cloud for its manifest, attested as serving would be. kUnavailable, kUntrusted,
// kSessionEnded (not the pinned model), kCorrupt; without a TEE as MakeBootIdentity says.
Result<ServePlan> PlanServe(const Config& config, bool simulated_tee);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_SERVE_H_
