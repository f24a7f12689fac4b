// Where everything lies for the GPU's product, and its number logic: plain functions of indices, so
// that a test without a GPU runs every one of them (kernel_test.cc).
//
// The product of six u8 digit planes and int8 weights is one integer matrix product of the tensor
// cores, mma.sync.m16n8k32 with s8 times u8 (PTX ISA, "mma", integer types: both operands choose
// their sign, so digits need no shift by 128 and no column sums):
//
//   M = outputs, 16 to a tile;  N = 6 planes of 4 rows, three tiles of 8 columns;  K = inputs.
//
// The sums are s32 and wrap (no .satfinite): with |digit * weight| <= 255 * 127 every partial sum
// over at most 65,536 inputs stays within 2,122,383,360 < 2^31, in whichever order it is taken.
#ifndef TALARIA_GEMM_CUDA_PRODUCT_LAYOUT_H_
#define TALARIA_GEMM_CUDA_PRODUCT_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define TALARIA_DEVICE_INLINE __host__ __device__ __forceinline__
#else
#define TALARIA_DEVICE_INLINE inline
#endif

namespace talaria::gemm::cuda {

inline constexpr uint32_t kUnitInputs = 64;       // inputs of a unit: two mma steps of 32
inline constexpr uint32_t kTileOutputs = 16;      // outputs of a tile
inline constexpr uint32_t kTileUnitBytes = 1024;  // the weights of a tile and a unit
inline constexpr uint32_t kPlaneCount = 6;
inline constexpr uint32_t kGroupRows = 4;     // rows whose planes fill three mma tiles
inline constexpr uint32_t kGroupTiles = 3;    // 24 columns
inline constexpr uint32_t kOutputUnit = 128;  // outputs in device memory: a multiple of every block
inline constexpr int64_t kModulus = (int64_t{1} << 48) - 16383;

// Sixteen bytes, as one load of a thread.
struct alignas(16) Words {
  uint32_t w[4];
};

constexpr uint32_t DeviceOutputs(uint32_t outputs) {
  return (outputs + kOutputUnit - 1) / kOutputUnit * kOutputUnit;
}

// Weights in device memory: [DeviceOutputs / 16 tiles][units][2 halves][32 lanes][16 bytes], the
// order in which a warp's threads hold the A operand of two mma steps, so that a warp loads a step
// with one contiguous 16-byte load a thread, and shared memory has no bank conflicts.
//
// A unit's inputs are dealt to the four threads of a group in runs of 16, half a run a step,
// because the digit planes then serve as they come over the wire: a thread's 16 bytes of a plane
// are its B operands of both steps. Sums do not mind the order of inputs, as long as both operands
// agree.
//
// Operand A of m16n8k32: thread (g = lane / 4, t = lane % 4) holds four words; words 0 and 2 are of
// output g, 1 and 3 of output g + 8; words 0 and 1 are inputs 4 t of the step, 2 and 3 inputs
// 16 + 4 t, which here are inputs 16 t + 8 half and 16 t + 8 half + 4 of the unit.
TALARIA_DEVICE_INLINE uint32_t WordOutput(uint32_t lane, uint32_t word) {  // in its tile
  return lane / 4 + (word & 1) * 8;
}
TALARIA_DEVICE_INLINE uint32_t WordInput(uint32_t half, uint32_t lane,
                                         uint32_t word) {  // in its unit, of four
  return lane % 4 * 16 + half * 8 + (word >> 1) * 4;
}

// Chunk `chunk` (of 16 bytes) of the weights of tile `tile`, from column-major int8 [count][d]
// whose first column is output `first`. Outputs outside of [first, first + count) and inputs from d
// on are zero.
TALARIA_DEVICE_INLINE Words PackedChunk(const int8_t* columns, uint32_t d, uint32_t first,
                                        uint32_t count, uint32_t tile, uint32_t chunk) {
  const uint32_t unit = chunk / 64, half = chunk / 32 % 2, lane = chunk % 32;
  Words out{};
  for (uint32_t word = 0; word < 4; ++word) {
    const uint32_t output = tile * kTileOutputs + WordOutput(lane, word);
    const uint32_t input = unit * kUnitInputs + WordInput(half, lane, word);
    if (output < first || output - first >= count) continue;
    const int8_t* from = columns + size_t{output - first} * d;
    for (uint32_t i = 0; i < 4 && input + i < d; ++i)
      out.w[word] |= static_cast<uint32_t>(static_cast<uint8_t>(from[input + i])) << (8 * i);
  }
  return out;
}

// Column c of the B operand's three tiles of a group of rows. Sums come back to thread t of a group
// of lanes for columns 2 t and 2 t + 1 of each tile; dealt like this, a thread has all six planes
// of row t and needs no other thread to make a residue of them.
TALARIA_DEVICE_INLINE uint32_t ColumnRow(uint32_t column) { return column % 8 / 2; }
TALARIA_DEVICE_INLINE uint32_t ColumnPlane(uint32_t column) { return column / 8 * 2 + column % 2; }

// Six sums -> their canonical residue. With |sum| < 2^31: |low|, |high| < 2^47.01, and 2^24 high =
// carry 2^48 + rest with 2^48 = 16383 (mod q); so the sum is in (-q, 2 q).
TALARIA_DEVICE_INLINE uint64_t Recombine(const int32_t* sums) {
  const int64_t low = sums[0] + (int64_t{sums[1]} * 256) + (int64_t{sums[2]} * 65536);
  const int64_t high = sums[3] + (int64_t{sums[4]} * 256) + (int64_t{sums[5]} * 65536);
  const int64_t carry = high >> 24;  // rounds down
  const int64_t rest = (high & 0xffffff) << 24;
  int64_t sum = low + rest + carry * 16383;
  if (sum < 0) sum += kModulus;
  if (sum >= kModulus) sum -= kModulus;
  return static_cast<uint64_t>(sum);
}

}  // namespace talaria::gemm::cuda

#endif  // TALARIA_GEMM_CUDA_PRODUCT_LAYOUT_H_
