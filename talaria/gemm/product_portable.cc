// The product in plain C++ that a compiler can vectorise: dot products of int16 (product_digits.h).
//   panel: [32 columns][padded_inputs] int8, then [32] corrections u64
//   row:   [3 digits][padded_inputs] int16
#include "talaria/gemm/product_digits.h"
#include "talaria/gemm/product_kernels.h"

namespace talaria::gemm {
namespace {

constexpr size_t kTileRows = 16;  // a column is widened once for so many rows

size_t PanelBytes(size_t padded_inputs) {
  return kPanelColumns * (padded_inputs + sizeof(uint64_t));
}
size_t PackedRowBytes(size_t padded_inputs) { return kDigits * padded_inputs * sizeof(int16_t); }

void PackPanel(const int8_t* columns, size_t d, size_t count, int8_t* panel) {
  const size_t padded = (d + 63) / 64 * 64;
  uint64_t* corrections = reinterpret_cast<uint64_t*>(panel + kPanelColumns * padded);
  for (size_t c = 0; c < kPanelColumns; ++c) {
    const size_t filled = c < count ? d : 0;
    int8_t* to = panel + c * padded;
    int64_t sum = 0;
    for (size_t k = 0; k < filled; ++k) {
      to[k] = columns[c * d + k];
      sum += to[k];
    }
    __builtin_memset(to + filled, 0, padded - filled);
    corrections[c] = ColumnCorrection(sum);
  }
}

void PackRows(const uint8_t* planes, size_t rows, size_t padded, uint8_t* packed) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t digit = 0; digit < kDigits; ++digit) {
      const uint8_t* low = planes + (r * 6 + 2 * digit) * padded;
      const uint8_t* high = low + padded;
      int16_t* to = reinterpret_cast<int16_t*>(packed) + (r * kDigits + digit) * padded;
      for (size_t k = 0; k < padded; ++k)
        to[k] = static_cast<int16_t>(low[k] + 256 * high[k] - 32768);
    }
  }
}

// One column times up to 16 rows.
void MultiplyColumn(const int8_t* column, const uint64_t* correction, const int16_t* packed,
                    size_t rows, size_t padded, uint8_t* out, size_t out_stride) {
  int64_t sums[kTileRows][kDigits] = {};
  for (size_t start = 0; start < padded; start += kMaxRun) {
    const size_t run = padded - start < kMaxRun ? padded - start : kMaxRun;
    int16_t wide[kMaxRun];
    for (size_t k = 0; k < run; ++k) wide[k] = column[start + k];
    for (size_t r = 0; r < rows; ++r) {
      for (size_t digit = 0; digit < kDigits; ++digit) {
        const int16_t* x = packed + (r * kDigits + digit) * padded + start;
        int32_t sum = 0;
        for (size_t k = 0; k < run; ++k) sum += static_cast<int32_t>(x[k]) * wide[k];
        sums[r][digit] += sum;
      }
    }
  }
  for (size_t r = 0; r < rows; ++r) {
    const uint64_t value = Recombine(sums[r][0], sums[r][1], sums[r][2], *correction);
    StoreResidues(&value, 1, out + r * out_stride);
  }
}

void Multiply(const PanelRun& run) {
  const size_t padded = run.padded_inputs;
  for (size_t p = 0; p < run.panel_count; ++p) {
    const int8_t* panel = run.panels + p * PanelBytes(padded);
    const uint64_t* corrections = reinterpret_cast<const uint64_t*>(panel + kPanelColumns * padded);
    for (size_t first = 0; first < run.rows; first += kTileRows) {
      const size_t rows = run.rows - first < kTileRows ? run.rows - first : kTileRows;
      const int16_t* packed =
          reinterpret_cast<const int16_t*>(run.packed) + first * kDigits * padded;
      for (size_t c = 0; c < kPanelColumns; ++c) {
        MultiplyColumn(panel + c * padded, corrections + c, packed, rows, padded,
                       run.out + first * run.out_stride + p * kPanelOutBytes + 6 * c,
                       run.out_stride);
      }
    }
  }
}

}  // namespace

const Kernel kPortableKernel = {"portable",     kChunkBytes, kMinChunkRows, PanelBytes,
                                PackedRowBytes, PackPanel,   PackRows,      Multiply};

}  // namespace talaria::gemm
