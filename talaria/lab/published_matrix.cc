#include "talaria/lab/published_matrix.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "talaria/base/bytes.h"
#include "talaria/ring/aes_ctr.h"
#include "talaria/ring/modq.h"
#include "talaria/ring/sampler.h"

namespace talaria::lab {
namespace {

bool ParseNumber(std::string_view text, uint32_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out > 0;
}

}  // namespace

Result<PublicRows> PublicRows::Parse(std::string_view text) {
  PublicRows out;
  uint32_t number = 0;
  const size_t slash = text.find('/');
  if (slash != std::string_view::npos) {
    if (ParseNumber(text.substr(0, slash), out.numerator_) &&
        ParseNumber(text.substr(slash + 1), out.denominator_) && out.numerator_ < out.denominator_)
      return out;
  } else if (text.starts_with("d-") && ParseNumber(text.substr(2), number)) {
    out.numerator_ = out.denominator_ = 1;
    out.offset_ = -int64_t{number};
    return out;
  } else if (ParseNumber(text, number)) {
    out.numerator_ = 0;
    out.offset_ = number;
    return out;
  }
  return Status(Code::kInvalidArgument, "'" + std::string(text) +
                                            "' is no number of rows of M_pub: give a share of the "
                                            "width such as 1/2, a number, or d-1");
}

uint32_t PublicRows::Of(uint32_t d) const {
  const int64_t rows = int64_t{d} * numerator_ / denominator_ + offset_;
  return static_cast<uint32_t>(std::clamp<int64_t>(rows, 1, int64_t{d} - 1));
}

std::vector<uint8_t> PublishedMatrix(const Digest& core_digest, uint32_t d, uint32_t m) {
  Sha256 hash;
  hash.Update(AsBytes("talaria/lab/M_pub"));
  hash.Update(core_digest);
  const std::array<uint32_t, 2> shape = {d, m};  // little-endian, as everything here
  hash.Update(Bytes(reinterpret_cast<const uint8_t*>(shape.data()), sizeof shape));
  ring::AesCtrStream stream(hash.Finish(), 0);
  std::vector<uint64_t> row(d);
  std::vector<uint8_t> out(size_t{m} * d * ring::kResidueBytes);
  uint8_t* to = out.data();
  for (uint32_t r = 0; r < m; ++r) {
    ring::SampleResidues(stream, row);
    for (const uint64_t x : row) {
      ring::StoreResidue(to, x);
      to += ring::kResidueBytes;
    }
  }
  return out;
}

}  // namespace talaria::lab
