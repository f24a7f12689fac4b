// What Talaria's kernels cost on this machine, and what its memory and its instructions could do at
// best: single-threaded, called in this process, inputs cold as in a model.
// Times are CPU time of the calling thread, which a busy neighbour disturbs least.
#ifndef TALARIA_BENCH_KERNEL_COSTS_H_
#define TALARIA_BENCH_KERNEL_COSTS_H_

#include <cstddef>

#include "bench/statistics.h"
#include "bench/time_calls.h"
#include "talaria/base/cpu.h"
#include "talaria/base/result.h"

namespace talaria::bench {

struct MachineRates {
  Summary read_gb_per_second;  // one core, from memory
  Summary clock_ghz;           // by a chain of additions of one cycle each
  // Billions of 512-bit instructions a second, one core, independent of each other; medians are 0
  // where the processor has none.
  Summary ifma_per_ns;  // vpmadd52luq, 8 products: what masks are made with
  Summary vnni_per_ns;  // vpdpbusd, 64 products: the cloud's product without AMX
};
MachineRates MeasureMachine(const Timing& timing);

// AMX: a tdpbusd of n lines takes n cycles for n x 16 x 64 products (Intel's optimisation manual).
inline constexpr double kAmxProductsPerCycle = 1024;
// vpmadd52 per vector of 8 elements in ring/batch_avx512.cc: inner product 16 + 2; levels 1 to 4,
// 17 products of 3 for 16 values, and a fold; levels 5 to 8, 32 products of 3 for 16; the twist.
inline constexpr double kIfmaPerElement = (18 + 17.0 * 3 / 16 + 1 + 6 + 3) / 8;

// Nanoseconds per element of a row: of the d inputs (mask: norms, quantise, mask, H~ . u), of the o
// outputs (check, unmask), of both together (generate: secrets, errors, M, U and the self-test).
struct CvmCosts {
  Summary mask_ns, check_ns, unmask_ns;
  Summary generate_ns;           // one batch in a pass over the hints, as with pools of two
  Summary generate_four_ns;      // four, as when a pool is filled for the first time
  double self_test_four_ns = 0;  // the self-test's part of it, on average
};
// o is a multiple of 32. kResourceExhausted: memory. kInternal: a kernel that disagrees with the
// portable one.
Result<CvmCosts> MeasureCvm(Isa isa, size_t d, size_t o, const Timing& timing);

// Reads `bytes` once from memory per call, the next ones at every call. kResourceExhausted.
Result<Call> PrepareReading(size_t bytes, size_t cold_bytes);

// The cloud's product of `rows` rows, with other weights at every call; compared with the oracle.
// kResourceExhausted: memory. kInternal: a kernel that disagrees.
Result<Call> PrepareProduct(Isa isa, size_t d, size_t o, size_t rows, size_t cold_bytes);
// Microseconds of one such call. Errors as above.
Result<Summary> MeasureProduct(Isa isa, size_t d, size_t o, size_t rows, const Timing& timing);

// Bytes of a call on the wire, frame and header included, without TLS.
double WireBytesUp(size_t d, size_t rows);
double WireBytesDown(size_t o, size_t rows);

struct CallCosts {
  Summary wall_us;  // of a frame and its answer between two threads over a Unix socket
  Summary cpu_us;   // of the asking thread
};
CallCosts MeasureCall(size_t bytes_up, size_t bytes_down, const Timing& timing);

// Nanoseconds per byte of AES-256-GCM, in records of 16 KiB: TLS, one side, one direction.
Result<Summary> MeasureEncryption(const Timing& timing);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_KERNEL_COSTS_H_
