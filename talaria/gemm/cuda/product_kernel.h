// The GPU's product, one block of threads at a time, written against a policy `Hw` for what only
// hardware has (asynchronous copies, barriers, mma). talaria_cuda.cu gives it PTX; a test gives it
// an emulator (testing/emulator.h) and runs this very code on the CPU.
//
//   weights, planes --cp.async--> shared memory, a ring of stages --mma--> s32 sums in registers
//     --(sums of the warps that share inputs)--> residues in shared memory --> device memory
//
// Six planes never leave the registers as s32: device memory sees digits in and residues out.
#ifndef TALARIA_GEMM_CUDA_PRODUCT_KERNEL_H_
#define TALARIA_GEMM_CUDA_PRODUCT_KERNEL_H_

#include "talaria/gemm/cuda/product_layout.h"

#ifdef __CUDACC__
#define TALARIA_DEVICE __device__ __forceinline__
#define TALARIA_UNROLL _Pragma("unroll")
#else
#define TALARIA_DEVICE inline
#define TALARIA_UNROLL
#endif

namespace talaria::gemm::cuda {

// How a block of threads shares its tile: kWarpsM * kWarpsN * kWarpsK warps. A warp has kTiles
// tiles of 16 outputs and kGroups groups of 4 rows, and every kWarpsK-th unit of inputs.
template <uint32_t kGroups_, uint32_t kTiles_, uint32_t kWarpsM_, uint32_t kWarpsN_,
          uint32_t kWarpsK_, uint32_t kStages_>
struct Shape {
  static constexpr uint32_t kGroups = kGroups_, kTiles = kTiles_, kWarpsM = kWarpsM_,
                            kWarpsN = kWarpsN_, kWarpsK = kWarpsK_, kStages = kStages_;
  static constexpr uint32_t kThreads = 32 * kWarpsM * kWarpsN * kWarpsK;
  static constexpr uint32_t kOutputs = kTileOutputs * kTiles * kWarpsM;
  static constexpr uint32_t kRows = kGroupRows * kGroups * kWarpsN;
  static constexpr uint32_t kColumns = kPlaneCount * kRows;
  static constexpr uint32_t kWeightBytes = kOutputs / kTileOutputs * kWarpsK * kTileUnitBytes;
  static constexpr uint32_t kPlaneBytes = kWarpsK * kColumns * kUnitInputs;
  static constexpr uint32_t kStageBytes = kWeightBytes + kPlaneBytes;
  static constexpr uint32_t kWeightCopies = kWeightBytes / 16 / kThreads;  // of a thread, a stage
  static constexpr uint32_t kPlaneCopies = kPlaneBytes / 16 / kThreads;
  // One copy of all threads takes the weights of kPassUnits units of kPassTiles tiles.
  static constexpr uint32_t kPassUnits = kThreads / 64 < kWarpsK ? kThreads / 64 : kWarpsK;
  static constexpr uint32_t kPassTiles = kThreads / 64 / kPassUnits;
  static constexpr uint32_t kWarpSums = kTiles * kGroups * kGroupTiles * 4;  // s32 of a thread
  static constexpr uint32_t kSharedSumBytes =
      (kWarpsK - 1) * kWarpsM * kWarpsN * kWarpSums * 32 * sizeof(uint32_t);
  static constexpr uint32_t kResidueBytes = kRows * kOutputs * 6;
  static constexpr uint32_t kPipelineBytes = kStages * kStageBytes;
  static constexpr uint32_t kSharedBytes = kPipelineBytes > kSharedSumBytes + kResidueBytes
                                               ? kPipelineBytes
                                               : kSharedSumBytes + kResidueBytes;
  static_assert(kOutputUnit % kOutputs == 0, "blocks do not reach past the weights");
  static_assert(kThreads % 64 == 0 && kWarpsK % kPassUnits == 0 &&
                kWeightCopies * kThreads * 16 == kWeightBytes &&
                kPlaneCopies * kThreads * 16 == kPlaneBytes && kPlaneCopies <= 32);
  static_assert(kStages >= 2 && kSharedBytes <= 99 * 1024, "sm_86 and sm_89 have 99 KB a block");
};

// One to four rows (decode): the time is reading the weights, so a block has few outputs and its
// warps share the inputs, and a matrix of 4,096 outputs still fills 128 multiprocessors. Memory
// with 4.8 TB/s and some 0.7 us until it answers has 25 KB under way for each of 132
// multiprocessors: many short stages, of which 40 KiB of weights are under way and 8 KiB in use.
using FewRows = Shape<1, 2, 1, 1, 4, 6>;
// Up to 16 rows, and more when ManyRows would leave multiprocessors idle. Likewise: 24 KiB of
// weights under way, and two blocks a multiprocessor.
using SomeRows = Shape<4, 2, 2, 1, 2, 4>;
// From there on the time is arithmetic: 64 outputs times 48 columns a warp are 48 mma on 14 loads.
using ManyRows = Shape<2, 4, 2, 4, 1, 4>;

struct ProductArgs {
  const uint8_t* weights;   // product_layout.h
  const uint8_t* planes;    // [rows][6][units * 64], at most kMostPlaneBytes
  uint8_t* out;             // [rows][padded_outputs] x 6 bytes
  uint32_t units;           // of inputs, >= 1
  uint32_t rows;            // >= 1
  uint32_t padded_outputs;  // a multiple of 32
};

inline constexpr uint64_t kMostPlaneBytes = uint64_t{1} << 36;  // 32 bits count 16-byte chunks

template <class S>
TALARIA_DEVICE_INLINE uint32_t RowBlocks(uint32_t rows) {
  return (rows + S::kRows - 1) / S::kRows;
}
// Row blocks of the same outputs come one after the other, so that weights pass from memory once.
template <class S>
inline uint64_t Blocks(uint32_t rows, uint32_t padded_outputs) {
  return uint64_t{RowBlocks<S>(rows)} * ((padded_outputs + S::kOutputs - 1) / S::kOutputs);
}

enum class ShapeChoice { kFewRows, kSomeRows, kManyRows };
inline ShapeChoice ChooseShape(uint32_t rows, uint32_t padded_outputs, int multiprocessors) {
  if (rows <= FewRows::kRows) return ShapeChoice::kFewRows;
  if (rows <= SomeRows::kRows ||
      Blocks<ManyRows>(rows, padded_outputs) < static_cast<uint64_t>(multiprocessors))
    return ShapeChoice::kSomeRows;
  return ShapeChoice::kManyRows;
}

template <class Hw, class S>
class ProductBlock {
 public:
  TALARIA_DEVICE ProductBlock(Hw& hw, const ProductArgs& args, uint8_t* shared, uint32_t block,
                              uint32_t thread)
      : hw_(hw),
        args_(args),
        shared_(shared),
        thread_(thread),
        lane_(thread % 32),
        warp_k_(thread / 32 % S::kWarpsK),
        warp_n_(thread / 32 / S::kWarpsK % S::kWarpsN),
        warp_m_(thread / 32 / S::kWarpsK / S::kWarpsN),
        first_row_(block % RowBlocks<S>(args.rows) * S::kRows),
        first_output_(block / RowBlocks<S>(args.rows) * S::kOutputs),
        weights_(args.weights +
                 (size_t{first_output_ / kTileOutputs + thread / 64 / S::kPassUnits} * args.units +
                  PassUnit()) *
                     kTileUnitBytes +
                 thread % 64 * 16) {
    TALARIA_UNROLL
    for (uint32_t i = 0; i < S::kPlaneCopies; ++i) {
      const uint32_t chunk = thread + i * S::kThreads, column = chunk / 4 % S::kColumns;
      const uint32_t row =
          first_row_ + column / (kPlaneCount * kGroupRows) * kGroupRows + ColumnRow(column);
      const uint32_t plane = ColumnPlane(column % (kPlaneCount * kGroupRows));
      const bool exists = row < args.rows;  // the others read as zero
      rows_exist_ |= (exists ? 1u : 0u) << i;
      plane_chunks_[i] =
          (((exists ? row : 0) * kPlaneCount + plane) * args.units + PlaneUnit(i)) * 4 + chunk % 4;
    }
  }

  TALARIA_DEVICE void Run() {
    const uint32_t steps = (args_.units + S::kWarpsK - 1) / S::kWarpsK;
    for (uint32_t step = 0; step + 1 < S::kStages; ++step) {
      if (step < steps) Load(step);
      hw_.CommitCopies();
    }
    for (uint32_t step = 0; step < steps; ++step) {
      // Of the kStages - 1 + step groups committed, all but the last kStages - 2 have landed: those
      // of this step too. The barrier shows them to every thread, and says that every warp is done
      // with step - 1, whose stage is filled next.
      hw_.template WaitCopies<S::kStages - 2>();
      hw_.BlockBarrier();
      if (step + S::kStages - 1 < steps) Load(step + S::kStages - 1);
      hw_.CommitCopies();
      Multiply(step);
    }
    hw_.template WaitCopies<0>();
    hw_.BlockBarrier();
    if constexpr (S::kWarpsK > 1) AddWarps();
    if (warp_k_ == 0) StoreResidues();
    hw_.BlockBarrier();
    CopyOut();
  }

 private:
  // The units of this thread's copies, of a stage's: of weights the first one, of digits each.
  TALARIA_DEVICE uint32_t PassUnit() const { return thread_ / 64 % S::kPassUnits; }
  TALARIA_DEVICE uint32_t PlaneUnit(uint32_t i) const {
    return (thread_ + i * S::kThreads) / (S::kColumns * 4);
  }

  // A stage is weights [tiles][kWarpsK units][1024] and digits [kWarpsK units][columns][64]; what
  // lies past the last unit is neither loaded nor multiplied.
  TALARIA_DEVICE void Load(uint32_t step) {
    const uint32_t left = args_.units - step * S::kWarpsK;
    if (left >= S::kWarpsK) {
      Copy<true>(step, left);
    } else {
      Copy<false>(step, left);
    }
  }
  // Every address was made at the start and only moves on: at full speed of the memory there is
  // time for some tens of instructions a copy.
  template <bool kWhole>
  TALARIA_DEVICE void Copy(uint32_t step, uint32_t left) {
    uint8_t* const stage = shared_ + step % S::kStages * S::kStageBytes + thread_ * 16;
    const uint8_t* const weights = weights_ + size_t{step} * (S::kWarpsK * kTileUnitBytes);
    const uint8_t* const planes = args_.planes + size_t{step} * (S::kWarpsK * kUnitInputs);
    constexpr uint32_t kPasses = S::kWarpsK / S::kPassUnits;
    TALARIA_UNROLL
    for (uint32_t i = 0; i < S::kWeightCopies; ++i) {
      const uint32_t unit = i % kPasses * S::kPassUnits, tile = i / kPasses * S::kPassTiles;
      if (kWhole || PassUnit() + unit < left) {
        hw_.CopyAsync16(stage + i * S::kThreads * 16,
                        weights + (size_t{tile} * args_.units + unit) * kTileUnitBytes, true);
      }
    }
    TALARIA_UNROLL
    for (uint32_t i = 0; i < S::kPlaneCopies; ++i) {
      if (kWhole || PlaneUnit(i) < left) {
        hw_.CopyAsync16(stage + S::kWeightBytes + i * S::kThreads * 16,
                        planes + size_t{plane_chunks_[i]} * 16, (rows_exist_ >> i & 1) != 0);
      }
    }
  }

  TALARIA_DEVICE void Multiply(uint32_t step) {
    if (step * S::kWarpsK + warp_k_ >= args_.units) return;  // all threads of the warp
    const uint8_t* const stage = shared_ + step % S::kStages * S::kStageBytes;
    const uint8_t* const weights =
        stage + (warp_m_ * S::kTiles * S::kWarpsK + warp_k_) * kTileUnitBytes + lane_ * 16;
    const uint8_t* const digits =
        stage + S::kWeightBytes +
        (warp_k_ * S::kColumns + warp_n_ * S::kGroups * kGroupTiles * 8) * kUnitInputs + lane_ * 16;
    Words a[2][S::kTiles];
    TALARIA_UNROLL
    for (uint32_t half = 0; half < 2; ++half) {
      TALARIA_UNROLL
      for (uint32_t tile = 0; tile < S::kTiles; ++tile)
        a[half][tile] = hw_.LoadShared16(weights + tile * S::kWarpsK * kTileUnitBytes + half * 512);
    }
    TALARIA_UNROLL
    for (uint32_t column_tile = 0; column_tile < S::kGroups * kGroupTiles; ++column_tile) {
      const Words b = hw_.LoadShared16(digits + column_tile * 8 * kUnitInputs);
      TALARIA_UNROLL
      for (uint32_t half = 0; half < 2; ++half) {
        TALARIA_UNROLL
        for (uint32_t tile = 0; tile < S::kTiles; ++tile)
          hw_.Mma(sums_[tile][column_tile], a[half][tile], b.w[2 * half], b.w[2 * half + 1]);
      }
    }
  }

  // Warps of other inputs and the same outputs and rows hand their sums to the first of them.
  TALARIA_DEVICE void AddWarps() {
    const uint32_t place = warp_m_ * S::kWarpsN + warp_n_;
    uint32_t* const all = reinterpret_cast<uint32_t*>(shared_);
    if (warp_k_ > 0) {
      uint32_t* const to =
          all + ((warp_k_ - 1) * S::kWarpsM * S::kWarpsN + place) * S::kWarpSums * 32 + lane_;
      TALARIA_UNROLL
      for (uint32_t i = 0; i < S::kWarpSums; ++i)
        to[i * 32] = static_cast<uint32_t>(
            sums_[i / 4 / (S::kGroups * kGroupTiles)][i / 4 % (S::kGroups * kGroupTiles)][i % 4]);
    }
    hw_.BlockBarrier();
    if (warp_k_ > 0) return;
    for (uint32_t other = 0; other + 1 < S::kWarpsK; ++other) {
      const uint32_t* const from =
          all + (other * S::kWarpsM * S::kWarpsN + place) * S::kWarpSums * 32 + lane_;
      TALARIA_UNROLL
      for (uint32_t i = 0; i < S::kWarpSums; ++i)
        sums_[i / 4 / (S::kGroups * kGroupTiles)][i / 4 % (S::kGroups * kGroupTiles)][i % 4] +=
            static_cast<int32_t>(from[i * 32]);
    }
  }

  // Behind the shared sums: [kRows][kOutputs] x 6 bytes.
  TALARIA_DEVICE void StoreResidues() {
    uint8_t* const residues = shared_ + S::kSharedSumBytes;
    TALARIA_UNROLL
    for (uint32_t tile = 0; tile < S::kTiles; ++tile) {
      TALARIA_UNROLL
      for (uint32_t group = 0; group < S::kGroups; ++group) {
        TALARIA_UNROLL
        for (uint32_t upper = 0; upper < 2; ++upper) {  // outputs g and g + 8
          int32_t planes[kPlaneCount];
          TALARIA_UNROLL
          for (uint32_t plane = 0; plane < kPlaneCount; ++plane)
            planes[plane] = sums_[tile][group * kGroupTiles + plane / 2][upper * 2 + plane % 2];
          const uint64_t residue = Recombine(planes);
          const uint32_t row = (warp_n_ * S::kGroups + group) * kGroupRows + lane_ % 4;
          const uint32_t output =
              (warp_m_ * S::kTiles + tile) * kTileOutputs + lane_ / 4 + upper * 8;
          uint16_t* const to =
              reinterpret_cast<uint16_t*>(residues + (row * S::kOutputs + output) * 6);
          to[0] = static_cast<uint16_t>(residue);
          to[1] = static_cast<uint16_t>(residue >> 16);
          to[2] = static_cast<uint16_t>(residue >> 32);
        }
      }
    }
  }

  // padded_outputs is a multiple of 32, so 16-byte pieces never straddle the end of a row.
  TALARIA_DEVICE void CopyOut() {
    constexpr uint32_t kRowChunks = S::kOutputs * 6 / 16;
    const uint8_t* const residues = shared_ + S::kSharedSumBytes;
    const size_t row_bytes = size_t{args_.padded_outputs} * 6;
    for (uint32_t chunk = thread_; chunk < S::kRows * kRowChunks; chunk += S::kThreads) {
      const uint32_t row = first_row_ + chunk / kRowChunks;
      const size_t byte = size_t{first_output_} * 6 + chunk % kRowChunks * 16;
      if (row >= args_.rows || byte >= row_bytes) continue;
      *reinterpret_cast<Words*>(args_.out + row * row_bytes + byte) =
          hw_.LoadShared16(residues + chunk * 16);
    }
  }

  Hw& hw_;
  const ProductArgs& args_;
  uint8_t* const shared_;
  const uint32_t thread_, lane_, warp_k_, warp_n_, warp_m_;
  const uint32_t first_row_, first_output_;
  const uint8_t* const weights_;            // the first that this thread copies
  uint32_t plane_chunks_[S::kPlaneCopies];  // likewise of args.planes, in 16 bytes
  uint32_t rows_exist_ = 0;                 // a bit for each of them
  int32_t sums_[S::kTiles][S::kGroups * kGroupTiles][4] = {};
};

}  // namespace talaria::gemm::cuda

#endif  // TALARIA_GEMM_CUDA_PRODUCT_KERNEL_H_
