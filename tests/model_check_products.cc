#include "tests/model_check_products.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>

#include "talaria/base/cpu.h"
#include "talaria/base/denormals.h"
#include "talaria/cvm/online.h"

namespace talaria::tests {
namespace {

struct QuantisedRow {
  bool finite = false;
  float sigma = 0;
  std::vector<int64_t> h;  // [d]
};

QuantisedRow Quantise(const cvm::Certificate& certificate, std::span<const float> x) {
  const ScopedFlushDenormals flush;  // as the session has it
  const cvm::RowNorms norms = cvm::NormsOf(Isa::kPortable, x.data(), x.size());
  const cvm::RowScale scale = certificate.ScaleFor(norms);
  QuantisedRow row;
  row.finite = norms.finite_mask != 0;
  row.sigma = scale.sigma;
  for (const float value : x)
    row.h.push_back(static_cast<int64_t>(std::nearbyintf(value * scale.inverse)));
  return row;
}

// Of one row of the source.
struct SourceNorms {
  double step = 0;  // a of the bound
  double sum = 0;   // ||W||_1
};

SourceNorms NormsOfSource(std::span<const float> row) {
  SourceNorms out;
  double largest = 0;
  for (const float w : row) {
    largest = std::max(largest, std::fabs(double{w}));
    out.sum += std::fabs(double{w});
  }
  const double step = largest / 127;
  out.step = step < double{FLT_MIN} * 1.001 ? largest : step * (0.5 + 0x1p-16);
  return out;
}

}  // namespace

void ProductVerdict::Add(const ProductVerdict& other) {
  values += other.values;
  inexact += other.inexact;
  out_of_bound += other.out_of_bound;
  worst = std::max(worst, other.worst);
}

std::vector<float> ExactProduct(const cvm::Certificate& certificate,
                                std::span<const int8_t> weights, std::span<const float> scales,
                                uint32_t rows, std::span<const float> input) {
  const ScopedFlushDenormals flush;
  const size_t d = certificate.d;
  std::vector<float> out;
  for (uint32_t r = 0; r < rows; ++r) {
    const QuantisedRow row = Quantise(certificate, input.subspan(r * d, d));
    if (!row.finite) return {};
    for (size_t o = 0; o < scales.size(); ++o) {
      const int8_t* w = weights.data() + o * d;
      int64_t y = 0;
      for (size_t j = 0; j < d; ++j) y += row.h[j] * w[j];
      out.push_back(static_cast<float>(y) * (row.sigma * scales[o]));
    }
  }
  return out;
}

ProductVerdict CheckProduct(const CheckedMatrix& matrix, const cvm::Certificate& certificate,
                            uint32_t rows, std::span<const float> input,
                            std::span<const float> output) {
  const size_t d = matrix.d, columns = matrix.o;
  ProductVerdict verdict;
  verdict.values = size_t{rows} * columns;
  const auto reject = [&] {
    verdict.inexact = verdict.out_of_bound = verdict.values;
    return verdict;
  };
  if (certificate.d != d || input.size() != rows * d || output.size() != verdict.values)
    return reject();
  const std::vector<float> exact =
      ExactProduct(certificate, matrix.weights, matrix.scales, rows, input);
  if (exact.empty()) return reject();

  std::vector<SourceNorms> norms;
  for (size_t o = 0; o < columns; ++o)
    norms.push_back(NormsOfSource(std::span(matrix.source).subspan(o * d, d)));
  for (size_t r = 0; r < rows; ++r) {
    const std::span<const float> x = input.subspan(r * d, d);
    const double sigma = Quantise(certificate, x).sigma * (0.5 + 0x1p-8);  // b
    double sum_x = 0;
    for (const float value : x) sum_x += std::fabs(double{value});
    for (size_t o = 0; o < columns; ++o) {
      const float* w = matrix.source.data() + o * d;
      double reference = 0, magnitude = 0;
      for (size_t j = 0; j < d; ++j) {
        const double term = double{x[j]} * double{w[j]};
        reference += term;
        magnitude += std::fabs(term);
      }
      const double dd = static_cast<double>(d);
      const double quantised = norms[o].step * sum_x + sigma * (norms[o].sum + dd * norms[o].step);
      const double bound =
          quantised + 0x1p-22 * (std::fabs(reference) + quantised) + dd * 0x1p-52 * magnitude;
      const float got = output[r * columns + o];
      const double error = std::fabs(double{got} - reference);
      if (std::bit_cast<uint32_t>(got) != std::bit_cast<uint32_t>(exact[r * columns + o]))
        ++verdict.inexact;
      if (!(error <= bound)) ++verdict.out_of_bound;
      if (bound > 0) verdict.worst = std::max(verdict.worst, error / bound);
    }
  }
  return verdict;
}

}  // namespace talaria::tests
