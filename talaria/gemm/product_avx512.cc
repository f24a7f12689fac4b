// The product for AVX-512 with VNNI: vpdpbusd of unsigned digit planes and signed weights, exact in
// s32 (product.h).
//
//   panel: as in product_planes.h
//   row:   [padded_inputs / 4][6 planes][4] u8: the six broadcasts of four inputs share a cache
//   line
//
// A tile is 2 rows x 6 planes x 32 columns = 24 accumulators over the full depth, so that the six
// sums of a value meet in registers and are recombined modulo q there: s32 never leaves the core.
// Weights pass from memory once for all rows: while the tiles of one panel run, the next panel is
// prefetched into L2. One row is a pure stream.
//
// Rejected, measured: plain s32 output and a second pass (16 to 25 % more at 49,152 outputs);
// 16-bit digits (the same rate here, and weights would have to be widened).

#include "talaria/gemm/product_planes.h"

namespace talaria::gemm {
namespace {

void PackRows(const uint8_t* planes, size_t rows, size_t padded, uint8_t* packed) {
  // Word g of plane p goes to word 6 g + p: written vector j takes from the planes in pairs.
  alignas(64) int32_t index[kPlaneCount][16];
  __mmask16 second[kPlaneCount], third[kPlaneCount];
  for (int j = 0; j < 6; ++j) {
    second[j] = third[j] = 0;
    for (int i = 0; i < 16; ++i) {
      const int word = 16 * j + i, plane = word % 6;
      index[j][i] = word / 6 + 16 * (plane & 1);
      if (plane / 2 == 1) second[j] = static_cast<__mmask16>(second[j] | 1 << i);
      if (plane / 2 == 2) third[j] = static_cast<__mmask16>(third[j] | 1 << i);
    }
  }
  for (size_t r = 0; r < rows; ++r) {
    const uint8_t* from = planes + r * kPlaneCount * padded;
    uint8_t* to = packed + r * PackedRowBytes(padded);
    for (size_t k = 0; k < padded; k += 64, to += 64 * kPlaneCount) {
      __m512i plane[kPlaneCount];
      for (size_t p = 0; p < kPlaneCount; ++p) plane[p] = _mm512_loadu_si512(from + p * padded + k);
      for (size_t j = 0; j < kPlaneCount; ++j) {
        const __m512i at = _mm512_load_si512(index[j]);
        __m512i words = _mm512_permutex2var_epi32(plane[0], at, plane[1]);
        words = _mm512_mask_mov_epi32(words, second[j],
                                      _mm512_permutex2var_epi32(plane[2], at, plane[3]));
        words = _mm512_mask_mov_epi32(words, third[j],
                                      _mm512_permutex2var_epi32(plane[4], at, plane[5]));
        _mm512_store_si512(to + 64 * j, words);
      }
    }
  }
}

// The inner loops are assembly: with intrinsics GCC 12 spills accumulators inside them (-12 %).
// zmm0..23 sums [row][plane][2 x 16 columns], zmm24/25 weights, zmm26..31 four inputs of each plane
// in all lanes. Four inputs a turn.
// clang-format off
#define TALARIA_STR_(x) #x
#define TALARIA_INPUT(offset, base, r) \
  "vpbroadcastd " TALARIA_STR_(offset) base ", %%zmm" TALARIA_STR_(r) "\n"
#define TALARIA_PRODUCTS(r, first, second)                                           \
  "vpdpbusd %%zmm24, %%zmm" TALARIA_STR_(r) ", %%zmm" TALARIA_STR_(first) "\n"       \
  "vpdpbusd %%zmm25, %%zmm" TALARIA_STR_(r) ", %%zmm" TALARIA_STR_(second) "\n"
#define TALARIA_ROW(base, a, b, c, d, e, f, g, h, i, j, k, l)                        \
  TALARIA_INPUT(0, base, 26) TALARIA_INPUT(4, base, 27) TALARIA_INPUT(8, base, 28)   \
  TALARIA_INPUT(12, base, 29) TALARIA_INPUT(16, base, 30) TALARIA_INPUT(20, base, 31) \
  TALARIA_PRODUCTS(26, a, b) TALARIA_PRODUCTS(27, c, d) TALARIA_PRODUCTS(28, e, f)   \
  TALARIA_PRODUCTS(29, g, h) TALARIA_PRODUCTS(30, i, j) TALARIA_PRODUCTS(31, k, l)
#define TALARIA_CLEAR(r) "vpxord %%zmm" #r ", %%zmm" #r ", %%zmm" #r "\n"
#define TALARIA_STORE(r) "vmovdqa64 %%zmm" #r ", 64*" #r "(%[sums])\n"
#define TALARIA_LOW12(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11)
#define TALARIA_HIGH12(m) m(12) m(13) m(14) m(15) m(16) m(17) m(18) m(19) m(20) m(21) m(22) m(23)
#define TALARIA_WEIGHTS             \
  "vmovdqa64 (%[w]), %%zmm24\n"     \
  "vmovdqa64 64(%[w]), %%zmm25\n"   \
  "prefetcht1 (%[next])\n"
#define TALARIA_STEP                \
  "add $128, %[w]\n"                \
  "add $24, %[x]\n"                 \
  "add %[next_step], %[next]\n"     \
  "dec %[quads]\n"                  \
  "jnz 1b\n"
#define TALARIA_CLOBBERS                                                                     \
  "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",    \
  "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18",   \
  "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28",  \
  "xmm29", "xmm30", "xmm31"

// sums [6 planes][32 columns] of one row.
inline void Dot1(const uint8_t* x, const int8_t* w, size_t quads, __m512i* sums, const char* next,
                 size_t next_step) {
  asm volatile(TALARIA_LOW12(TALARIA_CLEAR)
               ".p2align 5\n"
               "1:\n"
               TALARIA_WEIGHTS
               "prefetcht1 64(%[next])\n"
               TALARIA_ROW("(%[x])", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
               TALARIA_STEP
               TALARIA_LOW12(TALARIA_STORE)
               : [w] "+&r"(w), [x] "+&r"(x), [quads] "+&r"(quads), [next] "+&r"(next)
               : [sums] "r"(sums), [next_step] "r"(next_step)
               : TALARIA_CLOBBERS);
}

// sums [2 rows][6 planes][32 columns]; the second row lies `stride` bytes after the first.
inline void Dot2(const uint8_t* x, size_t stride, const int8_t* w, size_t quads, __m512i* sums,
                 const char* next, size_t next_step) {
  asm volatile(TALARIA_LOW12(TALARIA_CLEAR)
               TALARIA_HIGH12(TALARIA_CLEAR)
               ".p2align 5\n"
               "1:\n"
               TALARIA_WEIGHTS
               TALARIA_ROW("(%[x])", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
               TALARIA_ROW("(%[x],%[stride])", 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
               TALARIA_STEP
               TALARIA_LOW12(TALARIA_STORE)
               TALARIA_HIGH12(TALARIA_STORE)
               : [w] "+&r"(w), [x] "+&r"(x), [quads] "+&r"(quads), [next] "+&r"(next)
               : [sums] "r"(sums), [next_step] "r"(next_step), [stride] "r"(stride)
               : TALARIA_CLOBBERS);
}
// clang-format on

void Multiply(const PanelRun& run) {
  const size_t panel_bytes = PanelBytes(run.padded_inputs);
  const size_t row_bytes = PackedRowBytes(run.padded_inputs);
  const size_t quads = run.padded_inputs / 4;
  alignas(64) __m512i sums[24];
  for (size_t p = 0; p < run.panel_count; ++p) {
    const int8_t* panel = run.panels + p * panel_bytes;
    const char* here = reinterpret_cast<const char*>(panel);
    uint8_t* out = run.out + p * kPanelOutBytes;
    if (run.rows == 1) {  // a pure stream: what comes 8 KB later
      Dot1(run.packed, panel, quads, sums, here + 8192, 128);
      Finish(sums, out);
      continue;
    }
    // A line per four inputs is half the next panel, so the first two tiles prefetch it.
    const bool more = p + 1 < run.panel_count;
    for (size_t r = 0; r < run.rows; r += 2) {
      const uint8_t* x = run.packed + r * row_bytes;
      const bool fetch = more && r < 4;
      const char* next = fetch ? here + panel_bytes + r / 2 * (panel_bytes / 2) : here;
      if (r + 1 < run.rows) {
        Dot2(x, row_bytes, panel, quads, sums, next, fetch ? 64 : 0);
        Finish(sums, out + r * run.out_stride);
        Finish(sums + 12, out + (r + 1) * run.out_stride);
      } else {
        Dot1(x, panel, quads, sums, next, fetch ? 64 : 0);
        Finish(sums, out + r * run.out_stride);
      }
    }
  }
}

}  // namespace

const Kernel kAvx512Kernel = {"avx512",       kChunkBytes, kMinChunkRows, PanelBytes,
                              PackedRowBytes, PackPanel,   PackRows,      Multiply};

}  // namespace talaria::gemm
