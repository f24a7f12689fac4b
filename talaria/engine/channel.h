// The one channel between llama-server (with the plug-in) and its parent: a shared-memory region
// (memfd) for one call at a time, and a Unix socket pair for start-up and for noticing that the
// other side died. Both are inherited by the child.
//
// Order of a call: the child writes header and rows, publishes its sequence number, wakes the
// parent; the parent copies the header once, checks it, works, writes the products, publishes. Each
// side spins briefly, then sleeps on a futex. The parent does not trust what the child writes:
// everything is checked against the model after it was copied.
#ifndef TALARIA_ENGINE_CHANNEL_H_
#define TALARIA_ENGINE_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/file.h"
#include "talaria/base/result.h"

namespace talaria::engine {

inline constexpr int kSharedMemoryFd = 3;  // what the child inherits, at fixed numbers
inline constexpr int kSocketFd = 4;
inline constexpr int kSkeletonFd = 5;
inline constexpr uint32_t kMaxRowsPerCall = 512;

// What the plug-in must know of the model. The parent leaves it, encoded, in the shared memory,
// where the child reads it once, when it connects; the first call overwrites it. Bounded, canonical
// (Encode(Decode(x)) == x):
//   u32 groups { u32 d, u32 members { u8 role, u32 o, u8 name length, name } }, little-endian
struct ChannelMember {
  std::string name;
  uint8_t role = 0 /* model::Role */;
  uint32_t o = 0;
};
struct ChannelGroup {
  uint32_t d = 0;
  std::vector<ChannelMember> members;
};
struct ChannelModel {
  std::vector<ChannelGroup> groups;
};
std::vector<uint8_t> Encode(const ChannelModel& model);
// kCorrupt.
Result<ChannelModel> DecodeChannelModel(Bytes data);

enum class CallStatus : uint32_t {
  kOk = 0,
  kNotFinite =
      1,  // carried out, but a row was not finite: fail the evaluation at its last offloaded node
  kFailed = 2,  // the cloud is unreachable: fail this evaluation, the next may work
  kEnded = 3,   // the session is over for good
};

// A call, as the parent's handler sees it. The pointers are into shared memory: inputs are read
// once, into private memory.
struct CallView {
  uint32_t group = 0, rows = 0;
  const float* input = nullptr;  // [rows][d]
  float* output = nullptr;       // member after member, each [rows][o]
};

// Messages of the child on the socket, each one byte of type and a fixed body.
enum class ChildEvent : uint8_t {
  kAllMatricesLanded = 1,  // every manifest matrix is in a real buffer of the plug-in
  kRefused = 2,  // the plug-in found something that must never happen (a hole read, an input
                 // mismatch); final
};

struct ChannelOptions {
  // How long a side spins at most before it sleeps; it gives the spin up by itself where it does
  // not pay (shared_region.h).
  uint32_t parent_spin_us = 40;
  uint32_t child_spin_us = 30;
  // Tells the plug-in to give up exec, new processes, ptrace and foreign sockets when it starts
  // (hardening.h).
  bool harden_child = false;
};

class ChannelClient;

// The parent's end. Serve() runs in a thread of its own.
class ChannelServer {
 public:
  // kInvalidArgument (not a model that DecodeChannelModel would take), kResourceExhausted. The
  // region holds kMaxRowsPerCall rows of the widest group, or `max_bytes` if that is less (at least
  // one row); it is locked and DONTDUMP.
  static Result<std::unique_ptr<ChannelServer>> Create(ChannelModel model, size_t max_bytes,
                                                       ChannelOptions options = {});
  virtual ~ChannelServer() = default;
  // For the child, to be passed at kSharedMemoryFd and kSocketFd.
  virtual int shared_memory_fd() const = 0;
  virtual int child_socket_fd() const = 0;
  virtual void CloseChildSocket() = 0;  // after the child was started
  virtual uint32_t MaxRows(uint32_t group) const = 0;
  using Handler = std::function<CallStatus(const CallView&)>;
  // Answers calls with `handler` until Stop() (kCancelled), the child ends (kUnavailable) or breaks
  // the protocol (kSessionEnded). `on_event` is called from the same thread, before any call that
  // the child made after the event.
  virtual Status Serve(const Handler& handler, const std::function<void(ChildEvent)>& on_event) = 0;
  virtual void Stop() = 0;  // any thread
  // For tests: the child's end in this process, on the same mapping, so that sanitizers see both
  // sides of the memory.
  virtual Result<std::unique_ptr<ChannelClient>> ConnectInProcess() = 0;
};

// The child's end, used by the plug-in. One thread at a time.
class ChannelClient {
 public:
  // From the inherited descriptors, which the caller may close afterwards. kUnavailable, kCorrupt,
  // kUnsupported (another version).
  static Result<std::unique_ptr<ChannelClient>> Connect(int shared_memory_fd, int socket_fd);
  virtual ~ChannelClient() = default;
  virtual const ChannelModel& model() const = 0;
  virtual uint32_t MaxRows(uint32_t group) const = 0;
  virtual bool harden() const = 0;  // ChannelOptions::harden_child
  // Where to write [rows][d] floats of the next call, and where its products will be: [rows][o] of
  // member m.
  virtual float* Input() = 0;
  virtual const float* Output(uint32_t group, uint32_t rows, uint32_t member) const = 0;
  // rows in [1, MaxRows(group)]. kEnded when the parent died.
  virtual CallStatus Call(uint32_t group, uint32_t rows) = 0;
  virtual void Notify(ChildEvent event) = 0;
};

}  // namespace talaria::engine

#endif  // TALARIA_ENGINE_CHANNEL_H_
