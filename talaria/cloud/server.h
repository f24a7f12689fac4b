// The untrusted server: sends the streams of one store and multiplies masked rows, for several CVMs
// at once. Keeps no state per request. Weights are loaded once.
#ifndef TALARIA_CLOUD_SERVER_H_
#define TALARIA_CLOUD_SERVER_H_

#include <memory>
#include <string>

#include "talaria/base/result.h"
#include "talaria/cloud/call_observer.h"
#include "talaria/cloud/gate.h"
#include "talaria/gemm/device.h"

namespace talaria::cloud {

struct ServerOptions {
  std::string store;
  std::string listen;       // unix:PATH or HOST:PORT
  gemm::DeviceSpec device;  // where products are computed
  // A test's, instead of `device`; it has to pass the self-test as well.
  std::shared_ptr<gemm::Device> test_device = nullptr;
  int batch_window_us = 0;  // how long a product may wait for other CVMs' rows (batch_scheduler.h)
  int max_connections = 64;
  // Of one attested key. A CVM needs one, and a second while the first is given up.
  int max_connections_per_cvm = 4;
  int idle_timeout_ms = 0;       // between requests; 0 = none. Inside a frame: frame_timeout_ms.
  int frame_timeout_ms = 10000;  // no progress for so long while a frame is received or sent; >= 1
  // Absolute, however slowly a peer drips: from the connection to the end of its Hello, and from
  // there to the end of its evidence, which a TEE takes seconds to make; >= 1.
  int hello_timeout_ms = 10000;
  int evidence_timeout_ms = 30000;
  // Whose CVMs are served. Null together with insecure_plaintext only.
  std::shared_ptr<Gate> gate = nullptr;
  // No TLS and no attestation: whoever connects can take the weights. Unix sockets and loopback
  // only, and not in a program without the simulated TEE.
  bool insecure_plaintext = false;
  bool local_only = false;  // refuse to listen elsewhere: the gate takes simulated evidence
  std::shared_ptr<CallObserver> observer = nullptr;  // the laboratory's; none in talaria-cloud
};

class Server {
 public:
  // Opens the store and the device, checks the digests of the weights while the device takes them,
  // listens. kNotFound,
  // kCorrupt, kIo (address in use), kInvalidArgument (an option out of range, neither or both
  // of gate and insecure_plaintext, or not a Unix socket or loopback where it must be),
  // kUnsupported (plaintext in a program that was built without the simulated TEE, or a device
  // whose products are wrong), kUnavailable (no such device).
  static Result<std::unique_ptr<Server>> Create(ServerOptions options);
  virtual ~Server() = default;
  // Serves until Stop(). Call once. kUnavailable: the device was lost, nothing can be multiplied
  // any more and all connections were ended; a new process may find it again.
  virtual Status Run() = 0;
  // From any thread or a signal handler: refuses new connections and lets Run() return. Run() sends
  // Drain to idle clients, lets the others have their reply for a second, then ends them, too.
  virtual void Stop() = 0;
  // The address that clients connect to (with the port that was chosen for HOST:0).
  virtual std::string address() const = 0;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_SERVER_H_
