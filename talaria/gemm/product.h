// The untrusted side's product: masked rows times int8 weights, exactly, mod q.
//   X: n rows of residues as six u8 digit planes, [n][6][d_padded] (low digit first)
//   W: [d x o] int8 in -127..127, one column per output
//   Y: n rows of residues, [n][o_padded] x 6 bytes, canonical
// d_padded is a multiple of 64 and o_padded of 32; padding is zero in W, so padded digits do not matter and padded outputs
// are zero. Exact for d_padded <= 65,536.
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

// Weights in a kernel's own layout. Immutable after Pack; shared by threads.
class PackedWeights {
 public:
  // Room for padded_outputs columns of d inputs. kResourceExhausted, kInvalidArgument (d = 0 or > kMaxInputs).
  static Result<PackedWeights> Create(Isa isa, size_t d, size_t padded_outputs);
  ~PackedWeights();
  PackedWeights(PackedWeights&&) noexcept;
  PackedWeights& operator=(PackedWeights&&) noexcept;
  // Columns [first, first + weights.size() / d) from column-major int8 [outputs][d]. first is a multiple of 32.
  // kCorrupt for a weight of -128.
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

// A fixed set of threads that products are spread over. Threads spin briefly, then sleep. One product at a time.
class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);  // >= 1, the caller's included
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;
  int size() const;
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Y = X * W mod q. `planes` is [rows][6][padded_inputs], `out` [rows][padded_outputs] x 6 bytes. `scratch` is grown on demand
// and kept by the caller, so that a running server does not allocate.
void Product(const PackedWeights& weights, Bytes planes, size_t rows, MutableBytes out, std::vector<uint8_t>& scratch, ThreadTeam& team);

// The oracle: 128-bit scalar code, one value at a time.
void ReferenceProduct(std::span<const int8_t> weights /*[o][d]*/, size_t d, Bytes planes, size_t rows, MutableBytes out);

// Runs every kernel up to `wanted` on fixed shapes against the oracle and returns the best one that agrees (a kernel library
// was once seen to return wrong sums silently). Logs what it rejects.
Isa SelfTestedIsa(Isa wanted);

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_H_
