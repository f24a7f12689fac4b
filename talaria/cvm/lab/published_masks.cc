#include "talaria/cvm/lab/published_masks.h"

#include <algorithm>
#include <array>

#include "talaria/cvm/entropy.h"
#include "talaria/cvm/mask_source.h"
#include "talaria/ring/aes_ctr.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/sampler.h"

namespace talaria::cvm::lab {
namespace {

using ring::kResidueBytes;
using talaria::lab::ResidueMatrix;

constexpr uint32_t kLearnRows = 128;  // per message
constexpr size_t kFillRows = 64;      // at a time: bounds the scratch for a wide output head

// Rows [first, first + n) of a product go to the rows of RowPanels.
void StoreRows(const std::vector<uint64_t>& values, size_t n, size_t columns, size_t first,
               uint8_t* panels) {
  for (size_t r = 0; r < n; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      ring::StoreResidue(panels + ring::RowPanelsOffset(first + r, c), values[r * columns + c]);
    }
  }
}

}  // namespace

Result<std::unique_ptr<PublishedMasks>> PublishedMasks::Create(const MaskedModel& model,
                                                               CloudLink& link,
                                                               talaria::lab::PublicRows m, Isa isa,
                                                               int threads) {
  const Isa tested = gemm::SelfTestedIsa(isa);
  std::unique_ptr<PublishedMasks> masks(new PublishedMasks(model, m, threads));
  const Digest core = model::CoreDigest(model.manifest);
  std::map<uint32_t, std::vector<uint8_t>> m_pub;
  for (uint32_t g = 0; g < model.groups.size(); ++g) {
    const uint32_t d = model.groups[g].d;
    if (!m_pub.contains(d)) {
      m_pub[d] = talaria::lab::PublishedMatrix(core, d, m.Of(d));
      TALARIA_ASSIGN_OR_RETURN(ResidueMatrix matrix,
                               ResidueMatrix::Create(tested, m.Of(d), d, m_pub[d]));
      masks->m_pub_.emplace(d, std::move(matrix));
    }
    TALARIA_RETURN_IF_ERROR(masks->Learn(g, link, m_pub[d], tested));
  }
  return masks;
}

Status PublishedMasks::Learn(uint32_t index, CloudLink& link, Bytes m_pub, Isa isa) {
  const MaskedGroup& group = model_.groups[index];
  const uint32_t m = m_.Of(group.d);
  const uint32_t most = std::min(kLearnRows, link.MaxRows(group.d_padded, group.o_padded));
  if (most == 0) return Status(Code::kUnsupported, "the cloud's frames do not hold one row");
  std::vector<uint8_t> r_pub(size_t{m} * group.o_padded * kResidueBytes);
  for (uint32_t row = 0; row < m; row += most) {
    const uint32_t n = std::min(most, m - row);
    std::vector<uint8_t> planes(size_t{n} * gemm::kPlanes * group.d_padded);
    for (size_t r = 0; r < n; ++r) {
      const uint8_t* const from = m_pub.data() + (row + r) * group.d * kResidueBytes;
      for (size_t j = 0; j < group.d; ++j) {
        for (size_t p = 0; p < gemm::kPlanes; ++p)
          planes[(r * gemm::kPlanes + p) * group.d_padded + j] = from[j * kResidueBytes + p];
      }
    }
    const MutableBytes out = MutableBytes(r_pub).subspan(
        size_t{row} * group.o_padded * kResidueBytes, size_t{n} * group.o_padded * kResidueBytes);
    TALARIA_RETURN_IF_ERROR(link.Multiply(index, n, planes, out));
  }
  // Nobody has checked these bytes yet: not canonical would be no residue.
  for (size_t i = 0; i < r_pub.size(); i += kResidueBytes) {
    if (ring::LoadResidue(r_pub.data() + i) >= ring::kQ)
      return Status(Code::kSessionEnded, "the session has ended");
  }
  hint_bytes_ += r_pub.size();
  TALARIA_ASSIGN_OR_RETURN(ResidueMatrix matrix,
                           ResidueMatrix::Create(isa, m, group.o_padded, r_pub));
  r_pub_.push_back(std::move(matrix));
  return OkStatus();
}

Status PublishedMasks::Fill(uint32_t index, const BatchRows& rows) {
  const MaskedGroup& group = model_.groups[index];
  const uint32_t m = m_.Of(group.d);
  std::array<uint8_t, 32> key{};
  TALARIA_RETURN_IF_ERROR(FreshKey(RdseedPolicy::kUseIfPresent, "talaria-lab/M_pvt", key));
  ring::AesCtrStream stream(key, 0);
  std::vector<uint64_t> m_pvt(kFillRows * m);
  for (size_t first = 0; first < kBatchRows; first += kFillRows) {
    ring::SampleResidues(stream, m_pvt);
    const std::vector<uint8_t> planes = talaria::lab::DigitPlanes(m_pvt, kFillRows, m);
    const auto multiply = [&](const ResidueMatrix& matrix, uint8_t* panels) {
      matrix.Multiply(planes, kFillRows, product_, scratch_, team_);
      StoreRows(product_, kFillRows, matrix.padded_columns(), first, panels);
    };
    multiply(m_pub_.at(group.d), rows.mask);
    multiply(r_pub_[index], rows.unmask);
  }
  return OkStatus();
}

}  // namespace talaria::cvm::lab
