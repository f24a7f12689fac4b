// A block of GPU threads on the CPU, for running product_kernel.h without a GPU. Each thread is a
// fiber; which one runs next is drawn at random, so that code which relies on an order without a
// barrier fails here. Modelled after the PTX documentation:
//   cp.async: the bytes land at some time between the copy and the wait for its group: at once or
//             as late as possible, which a run chooses, so that reading too early and writing too
//             early both show. A copy that does not exist writes zeros and reads nothing.
//   bar.sync: all threads of the block, or none goes on.
//   mma.m16n8k32, s8 times u8: the fragments of all 32 lanes, by the documented places of their
//             elements; lanes of a warp that disagree on which mma they are at end the program.
// Shared memory starts as garbage. Reads and writes outside of it or off their alignment end the
// program. Not modelled: time, caches, bank conflicts, and whether ptxas and the hardware do what
// their documentation says.
#ifndef TALARIA_GEMM_CUDA_TESTING_EMULATOR_H_
#define TALARIA_GEMM_CUDA_TESTING_EMULATOR_H_

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "talaria/gemm/cuda/product_layout.h"

namespace talaria::gemm::cuda {

enum class Landing { kAtOnce, kLate };  // of asynchronous copies

class EmulatedBlock;

// What a thread sees of the hardware: the policy `Hw` of product_kernel.h.
class EmulatedThread {
 public:
  EmulatedThread(EmulatedBlock& block, uint32_t thread) : block_(block), thread_(thread) {}
  void CopyAsync16(uint8_t* shared, const uint8_t* from, bool exists);
  void CommitCopies();
  template <uint32_t kPending>
  void WaitCopies() {
    WaitCopies(kPending);
  }
  void BlockBarrier();
  Words LoadShared16(const uint8_t* shared) const;
  void Mma(int32_t (&sums)[4], const Words& a, uint32_t b0, uint32_t b1);

 private:
  struct Copy {
    uint8_t* to;
    const uint8_t* from;
    bool exists;
  };
  void WaitCopies(uint32_t pending);
  static void Land(const Copy& copy);
  EmulatedBlock& block_;
  uint32_t thread_;
  std::vector<std::vector<Copy>> groups_{1};  // the last one is not committed
};

class EmulatedBlock {
 public:
  EmulatedBlock(uint32_t threads, size_t shared_bytes, Landing landing, uint64_t seed);
  ~EmulatedBlock();
  EmulatedBlock(const EmulatedBlock&) = delete;
  EmulatedBlock& operator=(const EmulatedBlock&) = delete;
  uint8_t* shared() { return shared_; }
  // Calls body(thread, its hardware) for every thread, interleaved; returns when all have.
  void Run(const std::function<void(uint32_t, EmulatedThread&)>& body);

 private:
  friend class EmulatedThread;
  struct Fiber;
  struct Warp;
  static void Enter(unsigned high, unsigned low);
  void Yield(uint32_t thread);  // back to Run, until this thread is drawn again
  void CheckShared(const uint8_t* at, size_t bytes) const;

  size_t shared_bytes_;
  std::vector<uint8_t> memory_;
  uint8_t* shared_;  // 16-byte aligned, in memory_
  Landing landing_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  const std::function<void(uint32_t, EmulatedThread&)>* body_ = nullptr;
  ucontext_t run_{};
};

}  // namespace talaria::gemm::cuda

#endif  // TALARIA_GEMM_CUDA_TESTING_EMULATOR_H_
