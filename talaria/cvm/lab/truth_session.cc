#include "talaria/cvm/lab/truth_session.h"

namespace talaria::cvm::lab {

Result<MultiplyResult> TruthSession::Multiply(uint32_t group, uint32_t rows, const float* x,
                                              size_t x_stride, std::span<float* const> outputs) {
  TALARIA_ASSIGN_OR_RETURN(const MultiplyResult result,
                           Session::Multiply(group, rows, x, x_stride, outputs));
  if (!truth_.Keeps(group)) return result;
  const size_t row_bytes = size_t{model_.groups[group].d} * sizeof(float);
  for (uint32_t row = 0; row < rows; ++row) {
    const Bytes bytes(reinterpret_cast<const uint8_t*>(x + row * x_stride), row_bytes);
    TALARIA_RETURN_IF_ERROR(truth_.AppendRows(group, bytes));
  }
  return result;
}

}  // namespace talaria::cvm::lab
