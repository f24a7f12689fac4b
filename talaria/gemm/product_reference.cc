// The oracle. Deliberately shares nothing with the kernels: no packing, no digits, no tricks.
#include "talaria/gemm/product.h"
#include "talaria/ring/modq.h"

namespace talaria::gemm {

void ReferenceProduct(std::span<const int8_t> weights, size_t d, Bytes planes, size_t rows,
                      MutableBytes out) {
  TALARIA_CHECK(d > 0 && weights.size() % d == 0);
  const size_t outputs = weights.size() / d;
  const size_t padded_inputs = PadInputs(d);
  const size_t padded_outputs = PadOutputs(outputs);
  TALARIA_CHECK(planes.size() == rows * kPlanes * padded_inputs);
  TALARIA_CHECK(out.size() == rows * padded_outputs * ring::kResidueBytes);
  std::vector<int64_t> row(d);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t k = 0; k < d; ++k) {
      row[k] = 0;
      for (size_t p = 0; p < kPlanes; ++p) {
        row[k] |= static_cast<int64_t>(planes[(r * kPlanes + p) * padded_inputs + k]) << (8 * p);
      }
    }
    for (size_t c = 0; c < padded_outputs; ++c) {
      __int128 sum = 0;
      if (c < outputs) {
        for (size_t k = 0; k < d; ++k) sum += static_cast<__int128>(row[k]) * weights[c * d + k];
      }
      __int128 residue = sum % static_cast<__int128>(ring::kQ);
      if (residue < 0) residue += ring::kQ;
      ring::StoreResidue(out.data() + (r * padded_outputs + c) * ring::kResidueBytes,
                         static_cast<uint64_t>(residue));
    }
  }
}

}  // namespace talaria::gemm
