// The memory that llama-server's plug-in and its parent share: one header page and one data area,
// in a sealed memfd that neither side can resize. The words of the header are 32-bit and only
// touched through the functions here, with std::atomic_ref; the data area holds plain floats that
// one side writes before it publishes a word and the other reads after.
//
//   page 0    ChannelHeader
//   page 1..  data: at first the encoded ChannelModel, then for every call [rows][d] floats of
//   input, padded to 64 bytes,
//             and behind them member after member [rows][o] floats of output
#ifndef TALARIA_ENGINE_SHARED_REGION_H_
#define TALARIA_ENGINE_SHARED_REGION_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "talaria/base/file.h"
#include "talaria/base/result.h"

namespace talaria::engine {

inline constexpr uint32_t kChannelMagic = 0x4e484354;  // "TCHN"
inline constexpr uint32_t kChannelVersion = 1;
inline constexpr size_t kHeaderBytes = 4096;
inline constexpr uint32_t kFlagHarden =
    1;  // the plug-in gives up exec, ptrace and foreign sockets when it starts

struct ChannelHeader {
  // Written by the parent before the child exists; constant from then on.
  uint32_t magic;
  uint32_t version;
  uint32_t flags;
  uint32_t spin_us;      // how long the child spins for an answer before it sleeps
  uint64_t data_bytes;   // size of the data area
  uint64_t model_bytes;  // length of the encoded model at its start

  // Written by the child (the doorbell also by the parent, to wake itself up).
  alignas(64) uint32_t doorbell;  // changes whenever the parent should look
  uint32_t call_sequence;         // number of the latest call
  uint32_t event_sequence;        // number of events sent over the socket
  uint32_t group, rows;           // of the latest call
  alignas(64) uint32_t child_sleeps;

  // Written by the parent.
  alignas(64) uint32_t reply_sequence;
  uint32_t status;  // CallStatus of that reply
  alignas(64) uint32_t parent_sleeps;
};
static_assert(sizeof(ChannelHeader) <= kHeaderBytes);

// A mapping of the region; copies refer to the same mapping, the last one unmaps.
class SharedRegion {
 public:
  SharedRegion() = default;
  // The parent's: a new memfd of kHeaderBytes + data_bytes, zeroed, sealed against resizing, locked
  // as far as the platform allows (pages are locked when they are first touched) and kept out of
  // core dumps. kResourceExhausted.
  static Result<SharedRegion> Create(size_t data_bytes, Fd* memory);
  // The child's. Checks magic, version and size. kUnavailable (not a region), kUnsupported
  // (version), kCorrupt.
  static Result<SharedRegion> Map(int fd);

  ChannelHeader& header() const { return *static_cast<ChannelHeader*>(mapping_->base); }
  uint8_t* data() const { return static_cast<uint8_t*>(mapping_->base) + kHeaderBytes; }
  size_t data_bytes() const { return mapping_->size - kHeaderBytes; }

 private:
  struct Mapping {
    void* base = nullptr;
    size_t size = 0;
    ~Mapping();
  };
  static Result<SharedRegion> MapWhole(int fd, size_t size);
  std::shared_ptr<Mapping> mapping_;
};

inline uint32_t Load(uint32_t& word) {
  return std::atomic_ref<uint32_t>(word).load(std::memory_order_seq_cst);
}
inline void Store(uint32_t& word, uint32_t value) {
  std::atomic_ref<uint32_t>(word).store(value, std::memory_order_seq_cst);
}
inline void Increment(uint32_t& word) {
  std::atomic_ref<uint32_t>(word).fetch_add(1, std::memory_order_seq_cst);
}

// Wakes whoever sleeps on `word`, if `sleeps` says that somebody does. Call after the word was
// changed.
void Wake(uint32_t& word, uint32_t& sleeps);

// How one side waits: it spins for a while, because a wake-up costs several microseconds, and then
// sleeps. Where spinning does not pay, because the other side takes longer or needs this very core,
// the spin is given up, except for a try now and then.
class Waiter {
 public:
  explicit Waiter(std::chrono::microseconds spin) : most_(spin), spin_(spin) {}
  // Waits until `word` differs from `seen`, asleep for at most `sleep`, with `sleeps` set meanwhile
  // so that the other side knows that a system call is needed. Whether the word has changed.
  bool Wait(uint32_t& word, uint32_t seen, uint32_t& sleeps, std::chrono::milliseconds sleep);
  // The same without spinning: for whoever has waited long already.
  static bool Sleep(uint32_t& word, uint32_t seen, uint32_t& sleeps,
                    std::chrono::milliseconds sleep);

 private:
  const std::chrono::microseconds most_;
  std::chrono::microseconds spin_;
  uint32_t waits_ = 0;
};

}  // namespace talaria::engine

#endif  // TALARIA_ENGINE_SHARED_REGION_H_
