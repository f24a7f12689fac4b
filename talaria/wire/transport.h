// A reliable byte stream to the other side. Nothing above this interface holds a pointer into
// memory that the other side can change: Receive copies into private memory.
#ifndef TALARIA_WIRE_TRANSPORT_H_
#define TALARIA_WIRE_TRANSPORT_H_

#include <chrono>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "talaria/base/bytes.h"
#include "talaria/base/file.h"
#include "talaria/base/result.h"

namespace talaria::wire {

// unix:PATH or HOST:PORT (IPv6 in brackets).
struct Endpoint {
  enum class Kind { kUnix, kTcp } kind = Kind::kUnix;
  std::string path;                                      // kUnix
  std::string host, port;                                // kTcp
  static Result<Endpoint> Parse(std::string_view text);  // kInvalidArgument says what is wrong
  bool IsLocal() const;                                  // a Unix socket or a loopback address
  std::string ToString() const;
};

// One thread sends and one receives at a time. All failures are kUnavailable (reset, end of stream,
// time-out), with the cause in the message; kCancelled after Shutdown().
class Transport {
 public:
  virtual ~Transport() = default;
  // Sends all parts, in order, as one write where the system allows it. `timeout_ms`: no progress
  // for that long; 0 = none.
  virtual Status Send(std::initializer_list<Bytes> parts, int timeout_ms) = 0;
  // At least `min_bytes`, at most out.size(); returns how many. min_bytes >= 1. What was received
  // before a failure is lost.
  virtual Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) = 0;
  // A hint, from the receiving thread, for the waits that begin from now on: how long to look again
  // and again, giving the processor to whoever wants it, before sleeping. To wake a sleeper takes
  // longer than many replies. 0 at first.
  virtual void SetBusyWait(std::chrono::microseconds /*time*/) {}
  // Any thread: makes pending and later calls fail.
  virtual void Shutdown() = 0;
};

// kUnavailable (with the cause); kInvalidArgument for port 0. `timeout_ms` covers all addresses of
// a name together, not the resolver; 0 = the system's own.
Result<std::unique_ptr<Transport>> Connect(const Endpoint& endpoint, int timeout_ms);
std::unique_ptr<Transport> TransportFromSocket(
    Fd socket);  // already connected; tests use socketpair()

class Listener {
 public:
  // A stale Unix socket (nobody listens) is replaced; a live one is kIo "in use". The socket file
  // has mode 0600 and is removed at destruction. Of a name with several addresses the first one is
  // listened on. kUnavailable: the name does not resolve.
  static Result<std::unique_ptr<Listener>> Create(const Endpoint& endpoint);
  virtual ~Listener() = default;
  // Blocks. kCancelled after Shutdown(); kResourceExhausted when the system has no descriptor or
  // memory left for the connection that waits (the listener lives; pause, then try again); kIo when
  // the listener is broken.
  virtual Result<std::unique_ptr<Transport>> Accept() = 0;
  // Any thread, and signal handlers. New connections are refused, Accept() returns.
  virtual void Shutdown() = 0;
  // What clients connect to; for port 0 the one that the system chose.
  virtual std::string address() const = 0;
};

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_TRANSPORT_H_
