#include "talaria/ring/batch_portable.h"

namespace talaria::ring::internal {

void GeneratePortable(const uint8_t* matrix, size_t columns, size_t error_stride,
                      std::span<const NttSecret> secrets, std::span<const BatchOutput> outputs,
                      Polynomial& scratch) {
  for (size_t b = 0; b < outputs.size(); ++b) {
    const BatchOutput& output = outputs[b];
    for (size_t c = 0; c < columns; ++c) {
      for (size_t slot = 0; slot < kDegree; ++slot) {
        unsigned __int128 sum = 0;  // < 8 * 2^96
        for (size_t i = 0; i < kRank; ++i) {
          const uint64_t residue = LoadResidue(matrix + ModuleMatrixOffset(c, slot, i));
          sum += static_cast<unsigned __int128>(secrets[b].s[i][slot]) * residue;
        }
        scratch[slot] = Reduce128(sum);
      }
      InverseNtt(scratch);
      for (size_t row = 0; row < kDegree; ++row) {
        uint64_t residue = scratch[row];
        if (output.error != nullptr) {
          residue = AddMod(residue, FromSigned(output.error[row * error_stride + c]));
        }
        StoreResidue(output.rows + RowPanelsOffset(row, c), residue);
      }
    }
  }
}

}  // namespace talaria::ring::internal
