// The untrusted server: sends the streams of one store and multiplies masked rows, for several CVMs
// at once. Keeps no state per request. Weights are loaded once.
#ifndef TALARIA_CLOUD_SERVER_H_
#define TALARIA_CLOUD_SERVER_H_

#include <memory>
#include <string>

#include "talaria/base/cpu.h"
#include "talaria/base/result.h"

namespace talaria::cloud {

struct ServerOptions {
  std::string store;
  std::string listen;  // unix:PATH or HOST:PORT
  int threads = 2;     // of the products, together
  int max_connections = 64;
  int idle_timeout_ms = 0;       // between requests; 0 = none. Inside a frame: frame_timeout_ms.
  int frame_timeout_ms = 10000;  // no progress for so long while a frame is received or sent; >= 1
  // Without attested channels nothing but `Hello` is answered unless this is set.
  bool simulated_tee = false;
  Isa isa = Isa::kPortable;  // upper bound; the self-test decides
};

class Server {
 public:
  // Opens the store, checks the digests of the weights while packing them, listens. kNotFound,
  // kCorrupt, kIo (address in use), kInvalidArgument (an option out of range, or not a Unix socket
  // or loopback while the TEE is simulated), kUnsupported (a simulated TEE in a program that was
  // built without it).
  static Result<std::unique_ptr<Server>> Create(ServerOptions options);
  virtual ~Server() = default;
  // Serves until Stop(). Call once.
  virtual Status Run() = 0;
  // From any thread or a signal handler: refuses new connections and lets Run() return. Run() sends
  // Drain to idle clients, lets the others have their reply for a second, then ends them, too.
  virtual void Stop() = 0;
  // The address that clients connect to (with the port that was chosen for HOST:0).
  virtual std::string address() const = 0;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_SERVER_H_
