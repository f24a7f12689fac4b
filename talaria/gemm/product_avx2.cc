// The product for processors without an exact u8 x s8 instruction: vpmaddwd on three signed 16-bit
// digits (product_digits.h). Counted in operations per 32 inputs of one column it needs 12; moving
// signs so that vpmaddubsw cannot saturate needs 24, seven 7-bit digits 21, eight 6-bit digits 20.
//
//   panel: [2 halves][padded_inputs / 2][16 columns][2] int8, each half one linear stream;
//          then [32] corrections u64
//   row:   [padded_inputs / 2][3 digits][2] int16
//
// A tile is 2 rows x 3 digits x 16 columns = 12 accumulators over at most 512 inputs, summed up in
// s64, recombined at the end. While the tiles of one half run, the next half is prefetched into L2.
#include <immintrin.h>

#include "talaria/gemm/product_digits.h"
#include "talaria/gemm/product_kernels.h"

namespace talaria::gemm {
namespace {

constexpr size_t kHalf = 16;  // columns

size_t PanelBytes(size_t padded_inputs) {
  return kPanelColumns * (padded_inputs + sizeof(uint64_t));
}
size_t PackedRowBytes(size_t padded_inputs) { return kDigits * padded_inputs * sizeof(int16_t); }

void PackPanel(const int8_t* columns, size_t d, size_t count, int8_t* panel) {
  const size_t padded = (d + 63) / 64 * 64;
  uint64_t* corrections = reinterpret_cast<uint64_t*>(panel + kPanelColumns * padded);
  for (size_t c = 0; c < kPanelColumns; ++c) {
    int8_t* to = panel + c / kHalf * kHalf * padded + c % kHalf * 2;
    const size_t filled = c < count ? d : 0;
    int64_t sum = 0;
    for (size_t k = 0; k < padded; ++k) {
      const int8_t w = k < filled ? columns[c * d + k] : int8_t{0};
      to[k / 2 * 2 * kHalf + k % 2] = w;
      sum += w;
    }
    corrections[c] = ColumnCorrection(sum);
  }
}

void PackRows(const uint8_t* planes, size_t rows, size_t padded, uint8_t* packed) {
  // Pair i of digit g goes to word 3 i + g: three permutations and two blends for each of the three
  // vectors written.
  const __m256i pairs[3] = {_mm256_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2),
                            _mm256_setr_epi32(2, 3, 3, 3, 4, 4, 4, 5),
                            _mm256_setr_epi32(5, 5, 6, 6, 6, 7, 7, 7)};
  const __m256i sign = _mm256_set1_epi16(static_cast<int16_t>(-32768));
  for (size_t r = 0; r < rows; ++r) {
    const uint8_t* from = planes + r * 6 * padded;
    __m256i* to = reinterpret_cast<__m256i*>(packed + r * PackedRowBytes(padded));
    for (size_t k = 0; k < padded; k += 16, to += 3) {
      __m256i digits[3];
      for (size_t g = 0; g < 3; ++g) {
        const uint8_t* plane = from + 2 * g * padded + k;
        const __m256i low =
            _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(plane)));
        const __m256i high =
            _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(plane + padded)));
        digits[g] = _mm256_xor_si256(_mm256_or_si256(low, _mm256_slli_epi16(high, 8)), sign);
      }
#define TALARIA_INTERLEAVE(j, second, third)                                                      \
  _mm256_store_si256(                                                                             \
      to + (j), _mm256_blend_epi32(                                                               \
                    _mm256_blend_epi32(_mm256_permutevar8x32_epi32(digits[0], pairs[j]),          \
                                       _mm256_permutevar8x32_epi32(digits[1], pairs[j]), second), \
                    _mm256_permutevar8x32_epi32(digits[2], pairs[j]), third))
      // Bit i is set where word 8 j + i has digit 1, digit 2.
      TALARIA_INTERLEAVE(0, 0b10010010, 0b00100100);
      TALARIA_INTERLEAVE(1, 0b00100100, 0b01001001);
      TALARIA_INTERLEAVE(2, 0b01001001, 0b10010010);
#undef TALARIA_INTERLEAVE
    }
  }
}

// The inner loops are assembly: twelve accumulators, two vectors of weights, a broadcast and a
// product are all sixteen registers, and a compiler that wants a seventeenth spills in the loop.
// ymm0..11 sums [row][digit][2 x 8 columns], ymm12/13 weights, ymm14 two inputs in all lanes, ymm15
// products. One pair of inputs a turn.
// clang-format off
#define TALARIA_DIGIT(address, first, second)                 \
  "vpbroadcastd " address ", %%ymm14\n"                       \
  "vpmaddwd %%ymm14, %%ymm12, %%ymm15\n"                      \
  "vpmaddwd %%ymm14, %%ymm13, %%ymm14\n"                      \
  "vpaddd %%ymm15, %%ymm" #first ", %%ymm" #first "\n"        \
  "vpaddd %%ymm14, %%ymm" #second ", %%ymm" #second "\n"
#define TALARIA_CLEAR(r) "vpxor %%ymm" #r ", %%ymm" #r ", %%ymm" #r "\n"
#define TALARIA_STORE(r) "vmovdqa %%ymm" #r ", 32*" #r "(%[sums])\n"
#define TALARIA_LOW6(m) m(0) m(1) m(2) m(3) m(4) m(5)
#define TALARIA_HIGH6(m) m(6) m(7) m(8) m(9) m(10) m(11)
#define TALARIA_WEIGHTS               \
  "vpmovsxbw (%[w]), %%ymm12\n"       \
  "vpmovsxbw 16(%[w]), %%ymm13\n"     \
  "prefetcht1 (%[next])\n"
#define TALARIA_STEP                  \
  "add $32, %[w]\n"                   \
  "add $12, %[x]\n"                   \
  "add %[next_step], %[next]\n"       \
  "dec %[pairs]\n"                    \
  "jnz 1b\n"
#define TALARIA_CLOBBERS                                                                   \
  "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",  \
  "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

// sums [3 digits][16 columns] of one row.
inline void Dot1(const uint8_t* x, const int8_t* w, size_t pairs, int32_t* sums, const char* next,
                 size_t next_step) {
  asm volatile(TALARIA_LOW6(TALARIA_CLEAR)
               ".p2align 5\n"
               "1:\n"
               TALARIA_WEIGHTS
               TALARIA_DIGIT("(%[x])", 0, 1)
               TALARIA_DIGIT("4(%[x])", 2, 3)
               TALARIA_DIGIT("8(%[x])", 4, 5)
               TALARIA_STEP
               TALARIA_LOW6(TALARIA_STORE)
               : [w] "+&r"(w), [x] "+&r"(x), [pairs] "+&r"(pairs), [next] "+&r"(next)
               : [sums] "r"(sums), [next_step] "r"(next_step)
               : TALARIA_CLOBBERS);
}

// sums [2 rows][3 digits][16 columns]; the second row lies `stride` bytes after the first.
inline void Dot2(const uint8_t* x, size_t stride, const int8_t* w, size_t pairs, int32_t* sums,
                 const char* next, size_t next_step) {
  asm volatile(TALARIA_LOW6(TALARIA_CLEAR)
               TALARIA_HIGH6(TALARIA_CLEAR)
               ".p2align 5\n"
               "1:\n"
               TALARIA_WEIGHTS
               TALARIA_DIGIT("(%[x])", 0, 1)
               TALARIA_DIGIT("4(%[x])", 2, 3)
               TALARIA_DIGIT("8(%[x])", 4, 5)
               TALARIA_DIGIT("(%[x],%[stride])", 6, 7)
               TALARIA_DIGIT("4(%[x],%[stride])", 8, 9)
               TALARIA_DIGIT("8(%[x],%[stride])", 10, 11)
               TALARIA_STEP
               TALARIA_LOW6(TALARIA_STORE)
               TALARIA_HIGH6(TALARIA_STORE)
               : [w] "+&r"(w), [x] "+&r"(x), [pairs] "+&r"(pairs), [next] "+&r"(next)
               : [sums] "r"(sums), [next_step] "r"(next_step), [stride] "r"(stride)
               : TALARIA_CLOBBERS);
}
// clang-format on

struct Stream {
  const char* next;  // what to prefetch
  size_t step;       // bytes per pair of inputs; 0 when there is nothing
};

// kRows x 16 columns, full depth.
template <size_t kRows>
void Tile(const int8_t* half, const uint64_t* corrections, const uint8_t* x, size_t padded,
          Stream stream, uint8_t* out, size_t out_stride) {
  alignas(32) int32_t partial[kRows * kDigits * kHalf];
  alignas(32) int64_t sums[kRows][kDigits][kHalf];
  // The runs are of nearly equal length: a short one pays for the same widening.
  const size_t runs = (padded + kMaxRun - 1) / kMaxRun;
  const size_t run = (padded / 2 + runs - 1) / runs;
  for (size_t start = 0; start < padded / 2; start += run) {
    const size_t pairs = padded / 2 - start < run ? padded / 2 - start : run;
    if constexpr (kRows == 2) {
      Dot2(x + 12 * start, PackedRowBytes(padded), half + 32 * start, pairs, partial,
           stream.next + stream.step * start, stream.step);
    } else {
      Dot1(x + 12 * start, half + 32 * start, pairs, partial, stream.next + stream.step * start,
           stream.step);
    }
    // The assembly wrote `partial`, and through it every element of `sums`: clang-tidy sees
    // neither. NOLINTBEGIN(clang-analyzer-core.*)
    int64_t* flat = &sums[0][0][0];
    if (start == 0) {
      for (size_t i = 0; i < kRows * kDigits * kHalf; ++i) flat[i] = partial[i];
    } else {
      for (size_t i = 0; i < kRows * kDigits * kHalf; ++i) flat[i] += partial[i];
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    uint64_t values[kHalf];
    for (size_t c = 0; c < kHalf; ++c)
      values[c] = Recombine(sums[r][0][c], sums[r][1][c], sums[r][2][c], corrections[c]);
    StoreResidues(values, kHalf, out + r * out_stride);
  }
  // NOLINTEND(clang-analyzer-core.*)
}

void Multiply(const PanelRun& run) {
  const size_t padded = run.padded_inputs;
  const size_t half_bytes = kHalf * padded;
  const size_t row_bytes = PackedRowBytes(padded);
  for (size_t h = 0; h < 2 * run.panel_count; ++h) {
    const int8_t* panel = run.panels + h / 2 * PanelBytes(padded);
    const int8_t* half = panel + h % 2 * half_bytes;
    const uint64_t* corrections =
        reinterpret_cast<const uint64_t*>(panel + kPanelColumns * padded) + h % 2 * kHalf;
    uint8_t* out = run.out + h * kHalf * 6;
    const char* here = reinterpret_cast<const char*>(half);
    if (run.rows == 1) {  // a pure stream: what comes 8 KB later, each line twice
      Tile<1>(half, corrections, run.packed, padded, {here + 8192, 32}, out, 0);
      continue;
    }
    const bool more = h + 1 < 2 * run.panel_count;
    const char* next = here + half_bytes + (h % 2 == 1 ? kPanelColumns * sizeof(uint64_t) : 0);
    for (size_t r = 0; r < run.rows; r += 2) {
      // The first pass prefetches the next half; the first two do where there are two, each one
      // half of it.
      const size_t step = run.rows > 2 ? 16 : 32;
      const Stream stream =
          more && r < 4 ? Stream{next + r / 2 * half_bytes / 2, step} : Stream{here, 0};
      const uint8_t* x = run.packed + r * row_bytes;
      if (r + 1 < run.rows) {
        Tile<2>(half, corrections, x, padded, stream, out + r * run.out_stride, run.out_stride);
      } else {
        Tile<1>(half, corrections, x, padded, stream, out + r * run.out_stride, run.out_stride);
      }
    }
  }
}

}  // namespace

const Kernel kAvx2Kernel = {"avx2",         kChunkBytes, kMinChunkRows, PanelBytes,
                            PackedRowBytes, PackPanel,   PackRows,      Multiply};

}  // namespace talaria::gemm
