// Runs the PTX that nvcc has made of a kernel, on the CPU, one instruction at a time, as the PTX
// ISA defines them. What the emulator (emulator.h) cannot show is shown here: the operands of
// inline assembly, and what the compiler made of the rest. Only the instructions that our kernels
// have are known; another one is a failure that names it.
//
// Threads are interleaved at random between barriers, an asynchronous copy happens at once or when
// it is waited for, and registers and shared memory begin with rubbish. An access outside of the
// memory that was announced, or not aligned, is a failure.
#ifndef TALARIA_GEMM_CUDA_TESTING_PTX_H_
#define TALARIA_GEMM_CUDA_TESTING_PTX_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace talaria::gemm::cuda::testing {

struct PtxError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct PtxInstruction;

struct PtxKernel {
  std::string name;
  uint32_t threads = 0;                   // of a block (.maxntid)
  std::vector<uint32_t> parameter_bytes;  // of each
  std::vector<PtxInstruction> code;
  size_t registers = 0;
};

class PtxModule {
 public:
  // Throws PtxError, as everything here does.
  explicit PtxModule(const std::string& text);
  ~PtxModule();
  // The one kernel whose mangled name contains `part`.
  const PtxKernel& Find(std::string_view part) const;

 private:
  std::vector<PtxKernel> kernels_;
};

class PtxMachine {
 public:
  explicit PtxMachine(uint64_t seed) : random_(seed) {}
  // Device memory is the host's: what may be read, and what may be written.
  void Allow(const void* data, size_t bytes) { ranges_[Address(data)] = {bytes, false}; }
  void AllowWriting(void* data, size_t bytes) { ranges_[Address(data)] = {bytes, true}; }

  // One argument a parameter, as the bytes of it.
  using Argument = std::vector<uint8_t>;
  template <class T>
  static Argument Pass(const T& value) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    return {bytes, bytes + sizeof(T)};  // NOLINT(bugprone-sizeof-expression): pointers, too
  }
  void Launch(const PtxKernel& kernel, uint32_t blocks, uint32_t shared_bytes,
              const std::vector<Argument>& arguments);

 private:
  struct Range {
    size_t bytes;
    bool writable;
  };
  struct Thread;
  class Block;
  static uint64_t Address(const void* data) { return reinterpret_cast<uintptr_t>(data); }
  uint8_t* Global(uint64_t address, size_t bytes, bool write) const;
  uint64_t Random() {  // SplitMix64
    uint64_t z = random_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  uint64_t random_;
  std::map<uint64_t, Range> ranges_;
};

}  // namespace talaria::gemm::cuda::testing

#endif  // TALARIA_GEMM_CUDA_TESTING_PTX_H_
