// The two layouts of residues that every party shares. Both are six bytes a residue, padded with
// zero columns.
//
// ModuleMatrix, [k x columns] ring elements in the NTT domain (A_d and the hints A_d * W): blocks
// of 8 columns,
//   [ceil(columns / 8)][slot 0..255][i = 0..7][8 columns] x 6 bytes,
// 12,288 bytes per column. Slots are in natural order: slot s holds the value at psi^(2s + 1), psi
// the smallest primitive 512th root of unity.
//
// RowPanels, [256 rows x columns] residues (the mask rows M and the unmask rows U of one batch):
// panels of 32 columns,
//   [ceil(columns / 32)][256 rows][32 columns] x 6 bytes,
// so that the rows of a batch that are used together lie together.
//
// Kernels may read up to kSlack bytes past the end of either.
#ifndef TALARIA_RING_LAYOUT_H_
#define TALARIA_RING_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "talaria/ring/modq.h"
#include "talaria/ring/profile.h"

namespace talaria::ring {

inline constexpr size_t kSlack = 64;
inline constexpr size_t kBlockColumns = 8;
inline constexpr size_t kPanelColumns = 32;
inline constexpr size_t kBlockBytes = kBlockColumns * kSecretSize * kResidueBytes;  // 98,304
inline constexpr size_t kPanelRowBytes = kPanelColumns * kResidueBytes;             // 192
inline constexpr size_t kPanelBytes = kDegree * kPanelRowBytes;                     // 49,152
inline constexpr size_t kHintBytesPerColumn = kSecretSize * kResidueBytes;          // 12,288

constexpr size_t RoundUp(size_t x, size_t unit) { return (x + unit - 1) / unit * unit; }
constexpr size_t ModuleMatrixBytes(size_t columns) {
  return RoundUp(columns, kBlockColumns) / kBlockColumns * kBlockBytes;
}
constexpr size_t ModuleMatrixOffset(size_t column, size_t slot, size_t i) {
  return (column / kBlockColumns) * kBlockBytes +
         ((slot * kRank + i) * kBlockColumns + column % kBlockColumns) * kResidueBytes;
}
constexpr size_t RowPanelsBytes(size_t columns) {
  return RoundUp(columns, kPanelColumns) / kPanelColumns * kPanelBytes;
}
constexpr size_t RowPanelsOffset(size_t row, size_t column) {
  return (column / kPanelColumns) * kPanelBytes + row * kPanelRowBytes +
         column % kPanelColumns * kResidueBytes;
}

}  // namespace talaria::ring

#endif  // TALARIA_RING_LAYOUT_H_
