#include "talaria/ring/batch_portable.h"

namespace talaria::ring::internal {

void GeneratePortable(const uint8_t* matrix, size_t columns, size_t first_column,
                      size_t error_stride, std::span<const BatchOutput> batches,
                      Polynomial& scratch) {
  for (const BatchOutput& batch : batches) {
    for (size_t c = 0; c < columns; ++c) {
      for (size_t slot = 0; slot < kDegree; ++slot) {
        unsigned __int128 sum = 0;  // < 8 * 2^96
        for (size_t i = 0; i < kRank; ++i) {
          const uint64_t residue = LoadResidue(matrix + ModuleMatrixOffset(c, slot, i));
          sum += static_cast<unsigned __int128>(batch.secret->s[i][slot]) * residue;
        }
        scratch[slot] = Reduce128(sum);
      }
      InverseNtt(scratch);
      for (size_t row = 0; row < kDegree; ++row) {
        uint64_t residue = scratch[row];
        if (batch.error != nullptr) {
          residue = AddMod(residue, FromSigned(batch.error[row * error_stride + first_column + c]));
        }
        StoreResidue(batch.rows + RowPanelsOffset(row, first_column + c), residue);
      }
    }
  }
}

}  // namespace talaria::ring::internal
