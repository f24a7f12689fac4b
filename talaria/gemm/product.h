// The untrusted side's product: masked rows times int8 weights, exactly, mod q.
//   X: n rows of residues as six u8 digit planes, [n][6][d_padded] (low digit first)
//   W: [d x o] int8 in -127..127, one column per output
//   Y: n rows of residues, [n][o_padded] x 6 bytes, canonical
// d_padded is a multiple of 64 and o_padded of 32; padding is zero in W, so padded digits do not
// matter and padded outputs are zero. Exact for d_padded <= 65,536: a sum of u8 x s8 products is at
// most 65,536 * 255 * 127 = 2,122,383,360 < 2^31, and kernels that use other digits state their own
// bound. Digits of a value >= q are taken modulo q.
#ifndef TALARIA_GEMM_PRODUCT_H_
#define TALARIA_GEMM_PRODUCT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/cpu.h"
#include "talaria/base/result.h"

namespace talaria::gemm {

inline constexpr size_t kInputUnit = 64;
inline constexpr size_t kOutputUnit = 32;
inline constexpr size_t kMaxInputs = 65536;
inline constexpr size_t kPlanes = 6;

constexpr size_t PadInputs(size_t d) { return (d + kInputUnit - 1) / kInputUnit * kInputUnit; }
constexpr size_t PadOutputs(size_t o) { return (o + kOutputUnit - 1) / kOutputUnit * kOutputUnit; }

struct Kernel;  // product_kernels.h

// Weights in a kernel's own layout, in huge pages where the system grants them. Fill it, then share
// it: products only read.
class PackedWeights {
 public:
  // Room for padded_outputs columns of d inputs, all zero. kResourceExhausted when memory is short;
  // kInvalidArgument for d = 0 or > kMaxInputs, padded_outputs = 0 or not a multiple of 32, or an
  // isa that this processor has not.
  static Result<PackedWeights> Create(Isa isa, size_t d, size_t padded_outputs);
  // The same with a kernel that is not in the table: for the self-test and its tests.
  static Result<PackedWeights> CreateFor(const Kernel& kernel, Isa isa, size_t d,
                                         size_t padded_outputs);
  ~PackedWeights();
  PackedWeights(PackedWeights&&) noexcept;
  PackedWeights& operator=(PackedWeights&&) noexcept;
  // Columns [first, first + weights.size() / d) from column-major int8 [outputs][d]. first is a
  // multiple of 32; the rest of the last 32 columns touched becomes zero. Nothing is changed on an
  // error: kCorrupt for a weight of -128, kInvalidArgument for half a column or columns out of
  // range. Threads may set disjoint ranges at once.
  Status SetColumns(size_t first, std::span<const int8_t> weights);

  Isa isa() const;
  size_t d() const;
  size_t padded_inputs() const { return PadInputs(d()); }
  size_t padded_outputs() const;
  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  PackedWeights();
  std::unique_ptr<Impl> impl_;
};

// A fixed set of threads that products are spread over. They look for work for about a millisecond,
// yielding the processor at every look (a spin that does not stalls its neighbour for a scheduler
// tick: 8 ms were measured), then sleep. A helper that wakes late finds its share done by the
// others and is not waited for. One product at a time. If the system refuses a thread, the team is
// smaller and says so in the log.
class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);  // >= 1, the caller's included
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;
  int size() const;  // the caller's included
  struct Impl;       // thread_team.h
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Y = X * W mod q. `planes` is [rows][6][padded_inputs], `out` [rows][padded_outputs] x 6 bytes;
// other sizes are our own bug and end the program. `scratch` is grown on demand (at most to about 8
// MB, or 64 rows) and kept by the caller, so that a running server does not allocate. No alignment
// is asked for.
void Product(const PackedWeights& weights, Bytes planes, size_t rows, MutableBytes out,
             std::vector<uint8_t>& scratch, ThreadTeam& team);

// The oracle: 128-bit scalar code, one value at a time. `planes` and `out` as above, for weights
// [o][d].
void ReferenceProduct(std::span<const int8_t> weights /*[o][d]*/, size_t d, Bytes planes,
                      size_t rows, MutableBytes out);

// Runs every kernel up to `wanted` that this processor can run on fixed shapes against the oracle
// and returns the best one that agrees (a kernel library was once seen to return wrong sums
// silently). Logs what it rejects. Takes some 30 ms.
Isa SelfTestedIsa(Isa wanted);

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_H_
