// The CVM's way to the cloud: connects, says Hello, pins the model identity, fetches streams, and carries one call at a time.
#ifndef TALARIA_CVM_CLOUD_LINK_H_
#define TALARIA_CVM_CLOUD_LINK_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/model/stream.h"
#include "talaria/wire/connection.h"

namespace talaria::cvm {

struct CloudLinkOptions {
  std::string endpoint;          // unix:PATH or HOST:PORT
  Digest identity{};             // the model that is expected; zero = take the cloud's (only before set-up pins it)
  int connect_timeout_ms = 2000;
  int idle_timeout_ms = 4000;    // no byte for that long while a reply is due
  int max_retries = 2;           // further connections on which the identical bytes are sent
  uint32_t max_frame_bytes = wire::kMaxFrameBytes;
};

struct LinkStats {
  uint64_t calls = 0, retries = 0, bytes_sent = 0, bytes_received = 0;
};

// One call at a time (a mutex inside). Transport failures give kUnavailable, the link stays usable and connects anew at the
// next call. Protocol violations give kSessionEnded: the caller must poison its session.
class CloudLink {
 public:
  static Result<std::unique_ptr<CloudLink>> Create(CloudLinkOptions options);  // kInvalidArgument; does not connect
  ~CloudLink();

  // The identity that the cloud's Hello named.
  Result<Digest> Identity();
  // After set-up every connection must name this identity.
  void PinIdentity(const Digest& identity);
  // Exactly out.size() bytes of a stream. The bytes are unchecked: the caller compares digests.
  Status Fetch(model::StreamId stream, uint64_t offset, MutableBytes out);

  // Sends rows x [6][d_padded] planes and receives rows x [o_padded] x 6 bytes into `residues` (private memory). The reply's
  // call, group, rows and size are checked. On a transport failure the identical bytes go out again on a new connection.
  Status Multiply(uint32_t group, uint32_t rows, Bytes planes, MutableBytes residues);
  // The largest number of rows for which both frames fit.
  uint32_t MaxRows(uint32_t d_padded, uint32_t o_padded) const;

  LinkStats stats() const;
  void Shutdown();  // any thread: pending and later calls fail with kCancelled

 private:
  CloudLink();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_CLOUD_LINK_H_
