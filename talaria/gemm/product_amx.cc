// The product for AMX: tdpbusd of unsigned digit planes and signed weights, exact in s32
// (product.h). One does 12 x 16 sums over 64 inputs, the work of 192 vpdpbusd, in the time of some
// 24 of them.
//
//   panel: as in product_planes.h; 64 inputs of 16 columns are a tile, its lines 128 bytes apart
//   rows:  two and two, [padded_inputs / 64][2 rows][6 planes][64] u8; a last odd one alone
//
// Two rows make twelve lines of a tile. (Sixteen rows of one plane a tile would need six tiles of
// sums for each tile of weights; and an instruction's time grows with its lines, so that nothing is
// lost.) A step is two such tiles times two of weights, four products for four loads, over at most
// kRunInputs inputs: these weights stay in the first cache while kBlockRows rows pass.
//
// The instructions stand in assembly: GCC 12's intrinsics hide from it what they read, and it drops
// the stores of a configuration (llama.cpp issue 20824).
#include "talaria/gemm/product_planes.h"

namespace talaria::gemm {
namespace {

constexpr size_t kTileInputs = 64;
constexpr size_t kRunInputs = 1024;
constexpr size_t kBlockRows = 32;

// Intel SDM volume 1, 18.3: palette 1, 64 bytes a line. Tiles 0 to 3 are sums [rows a][columns 0],
// [a][1], [b][0], [b][1]; 4 and 5 rows a and b; 6 and 7 weights.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t line_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t lines[16];
};
static_assert(sizeof(TileConfig) == 64);
constexpr TileConfig Config(uint8_t a, uint8_t b) { return {.lines = {a, a, b, b, a, b, 16, 16}}; }
alignas(64) constexpr TileConfig kFourRows = Config(12, 12),
                                 kThreeRows = Config(12, 6), kOneRow = Config(6, 6);
static_assert(kPlaneCount == 6);

void PackRows(const uint8_t* planes, size_t rows, size_t padded, uint8_t* packed) {
  for (size_t r = 0; r < rows; ++r) {
    const bool paired = (r ^ 1) < rows;
    const size_t step = kPlaneCount * kTileInputs * (paired ? 2 : 1);
    const uint8_t* from = planes + r * kPlaneCount * padded;
    uint8_t* to = packed + r / 2 * 2 * PackedRowBytes(padded) + r % 2 * kPlaneCount * kTileInputs;
    for (size_t k = 0; k < padded; k += kTileInputs, to += step) {
      for (size_t p = 0; p < kPlaneCount; ++p)
        _mm512_store_si512(to + p * kTileInputs, _mm512_loadu_si512(from + p * padded + k));
    }
  }
}

inline void Configure(const TileConfig& config) {
  asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
}

// Sums that wait to become residues: `units` times 16 columns, [rows][6 planes][32 columns].
struct Pending {
  const __m512i* sums;
  uint8_t* out;
  size_t out_stride;
  size_t done, units;

  void FinishOne() {
    Store16(sums + done / 2 * 2 * kPlaneCount + done % 2,
            out + done / 2 * out_stride + done % 2 * 96);
    ++done;
  }
};

// What a step works on: rows 1 to 4, `tiles` times 64 inputs.
struct Step {
  const uint8_t* x;          // the first two rows (or the only one)
  const uint8_t* more;       // the rest, used where there are more than two
  size_t x_step, more_step;  // bytes from 64 inputs to the next 64
  const int8_t* weights;
  size_t tiles;
  size_t fetch_bytes;  // per 64 inputs
};

// Adds to sums [rows][6 planes][32 columns], or starts from zero; two tiles of rows where TWO says
// so. Meanwhile the vector units, idle otherwise, finish what is pending, and what lies at `next`
// comes into L2.
template <bool TWO>
inline void Multiply(const Step& step, __m512i* sums, bool from_zero, Pending& pending,
                     const char*& next) {
  constexpr size_t kLineStep = kTileInputs, kColumnStep = 2 * kTileInputs;
  __m512i* const more_sums = sums + 2 * 2 * kPlaneCount;
  if (from_zero) {
    asm volatile("tilezero %tmm0\n tilezero %tmm1");
    if (TWO) asm volatile("tilezero %tmm2\n tilezero %tmm3");
  } else {
    asm volatile("tileloadd (%0,%1), %%tmm0\n tileloadd 64(%0,%1), %%tmm1" ::"r"(sums),
                 "r"(kColumnStep)
                 : "memory");
    if (TWO) {
      asm volatile("tileloadd (%0,%1), %%tmm2\n tileloadd 64(%0,%1), %%tmm3" ::"r"(more_sums),
                   "r"(kColumnStep)
                   : "memory");
    }
  }
  const uint8_t *x = step.x, *more = step.more;
  const int8_t* weights = step.weights;
  for (size_t t = 0; t < step.tiles; ++t) {
    asm volatile(
        "tileloadd (%[x],%[line]), %%tmm4\n"
        "tileloadd (%[w],%[column]), %%tmm6\n"
        "tdpbusd %%tmm6, %%tmm4, %%tmm0\n"
        "tileloadd 64(%[w],%[column]), %%tmm7\n"
        "tdpbusd %%tmm7, %%tmm4, %%tmm1\n" ::[x] "r"(x),
        [w] "r"(weights), [line] "r"(kLineStep), [column] "r"(kColumnStep)
        : "memory");
    if (TWO) {
      asm volatile(
          "tileloadd (%[x],%[line]), %%tmm5\n"
          "tdpbusd %%tmm6, %%tmm5, %%tmm2\n"
          "tdpbusd %%tmm7, %%tmm5, %%tmm3\n" ::[x] "r"(more),
          [line] "r"(kLineStep)
          : "memory");
      more += step.more_step;
    }
    for (size_t line = 0; line < step.fetch_bytes; line += 64)
      __builtin_prefetch(next + line, 0, 2);
    next += step.fetch_bytes;
    if (pending.done < pending.units) pending.FinishOne();
    x += step.x_step;
    weights += kTileInputs * kPanelColumns;
  }
  while (pending.done < pending.units) pending.FinishOne();
  asm volatile("tilestored %%tmm0, (%0,%1)\n tilestored %%tmm1, 64(%0,%1)" ::"r"(sums),
               "r"(kColumnStep)
               : "memory");
  if (TWO) {
    asm volatile("tilestored %%tmm2, (%0,%1)\n tilestored %%tmm3, 64(%0,%1)" ::"r"(more_sums),
                 "r"(kColumnStep)
                 : "memory");
  }
}

const TileConfig& ConfigFor(size_t rows) {
  return rows == 1 ? kOneRow : rows == 3 ? kThreeRows : kFourRows;
}

void Multiply(const PanelRun& run) {
  const size_t panel_bytes = PanelBytes(run.padded_inputs);
  const size_t row_bytes = PackedRowBytes(run.padded_inputs);
  constexpr size_t kRowStep = kPlaneCount * kTileInputs, kStepRows = 4;
  alignas(64) __m512i sums[kBlockRows][2 * kPlaneCount];
  Pending pending = {};
  const TileConfig* now = nullptr;
  // The next panel is fetched evenly over the steps of this one.
  const size_t steps = (run.rows + kStepRows - 1) / kStepRows;
  const size_t fetch_bytes = (kPanelColumns + steps - 1) / steps * 64;
  for (size_t p = 0; p < run.panel_count; ++p) {
    const int8_t* panel = run.panels + p * panel_bytes;
    const bool last = p + 1 == run.panel_count;
    const char* next = reinterpret_cast<const char*>(panel) + panel_bytes;
    for (size_t block = 0; block < run.rows; block += kBlockRows) {
      const size_t end = run.rows - block < kBlockRows ? run.rows : block + kBlockRows;
      for (size_t k = 0; k < run.padded_inputs; k += kRunInputs) {
        const size_t left = run.padded_inputs - k;
        const size_t inputs = left < kRunInputs ? left : kRunInputs;
        for (size_t r = block; r < end; r += kStepRows) {
          const size_t rows = end - r < kStepRows ? end - r : kStepRows;
          if (const TileConfig& config = ConfigFor(rows); &config != now)
            Configure(*(now = &config));
          const size_t x_step = rows == 1 ? kRowStep : 2 * kRowStep;
          const size_t more_step = rows == 3 ? kRowStep : 2 * kRowStep;
          const uint8_t* x = run.packed + r * row_bytes;
          const Step step = {.x = x + k / kTileInputs * x_step,
                             .more = x + 2 * row_bytes + k / kTileInputs * more_step,
                             .x_step = x_step,
                             .more_step = more_step,
                             .weights = panel + k * kPanelColumns,
                             .tiles = inputs / kTileInputs,
                             .fetch_bytes = last ? 0 : fetch_bytes};
          __m512i* const to = sums[r - block];
          if (rows > 2) {
            Multiply<true>(step, to, k == 0, pending, next);
          } else {
            Multiply<false>(step, to, k == 0, pending, next);
          }
          if (left == inputs) {
            pending = {.sums = to,
                       .out = run.out + r * run.out_stride + p * kPanelOutBytes,
                       .out_stride = run.out_stride,
                       .done = 0,
                       .units = 2 * rows};
          }
        }
      }
    }
  }
  while (pending.done < pending.units) pending.FinishOne();
  asm volatile("tilerelease");
}

}  // namespace

const Kernel kAmxKernel = {"amx",          size_t{1} << 20, 32,       PanelBytes,
                           PackedRowBytes, PackPanel,       PackRows, Multiply};

}  // namespace talaria::gemm
