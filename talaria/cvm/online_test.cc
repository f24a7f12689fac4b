// Every path against the portable one, the portable one against the definition, and the whole chain
// mask -> product -> check
// -> unmask against the integer product.
#include "talaria/cvm/online.h"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

using ring::kQ;
using Random = std::mt19937_64;

constexpr unsigned kFlushToZero = 0x8040;  // MXCSR: FTZ and DAZ

class ScopedMxcsr {
 public:
  explicit ScopedMxcsr(bool flush) : before_(_mm_getcsr()) {
    _mm_setcsr(flush ? before_ | kFlushToZero : before_ & ~kFlushToZero);
  }
  ~ScopedMxcsr() { _mm_setcsr(before_); }

 private:
  unsigned before_;
};

uint64_t SomeResidue(Random& random) {
  switch (random() % 8) {
    case 0:
      return 0;
    case 1:
      return kQ - 1;
    case 2:
      return (kQ - 1) / 2 + random() % 2;
    default:
      return random() % kQ;
  }
}

std::vector<uint64_t> SomeVector(Random& random, size_t size, size_t padded) {
  std::vector<uint64_t> v(padded, 0);
  for (size_t i = 0; i < size; ++i) v[i] = SomeResidue(random);
  return v;
}

// One row in RowPanels layout, in a buffer that ends with its last panel.
struct Row {
  std::vector<uint8_t> bytes;
  size_t stride;
  Row(size_t columns, size_t panel_stride)
      : bytes((ring::RoundUp(columns, 32) / 32 - 1) * panel_stride + ring::kPanelRowBytes, 0xa5),
        stride(panel_stride) {}
  uint8_t* At(size_t column) { return bytes.data() + column / 32 * stride + column % 32 * 6; }
  uint64_t Get(size_t column) { return ring::LoadResidue(At(column)); }
};

Row SomeRow(Random& random, size_t columns, size_t stride) {
  Row row(columns, stride);
  const size_t distinct = stride == 0 ? std::min<size_t>(columns, 32) : columns;
  for (size_t c = 0; c < ring::RoundUp(distinct, 32); ++c)
    ring::StoreResidue(row.At(c), SomeResidue(random));
  return row;
}

std::vector<uint8_t> Pack(const std::vector<uint64_t>& residues) {
  std::vector<uint8_t> bytes(residues.size() * 6);
  for (size_t i = 0; i < residues.size(); ++i)
    ring::StoreResidue(bytes.data() + 6 * i, residues[i]);
  return bytes;
}

uint64_t Dot(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  uint64_t sum = 0;
  for (size_t i = 0; i < a.size(); ++i)
    sum = static_cast<uint64_t>((static_cast<unsigned __int128>(a[i]) * b[i] + sum) % kQ);
  return sum;
}

uint64_t Modulo(__int128 x) {
  const __int128 r = x % static_cast<__int128>(kQ);
  return static_cast<uint64_t>(r < 0 ? r + static_cast<__int128>(kQ) : r);
}

// Bits, so that zeros have signs and NaN equals itself.
std::vector<uint32_t> Bits(const std::vector<float>& x) {
  std::vector<uint32_t> bits(x.size());
  std::memcpy(bits.data(), x.data(), 4 * x.size());
  return bits;
}

const size_t kWidths[] = {1,  2,  7,  8,  15, 16,  17,  31,  32,   33,   48,  63,
                          64, 65, 95, 96, 97, 127, 130, 576, 1000, 1536, 2049};

// ----------------------------------------------------------------------------------------------------------------
// norms

void ExpectSameNorms(const RowNorms& a, const RowNorms& b, const std::string& what) {
  EXPECT_EQ(std::bit_cast<uint64_t>(a.max_abs), std::bit_cast<uint64_t>(b.max_abs)) << what;
  EXPECT_EQ(std::bit_cast<uint64_t>(a.sum_abs), std::bit_cast<uint64_t>(b.sum_abs)) << what;
  EXPECT_EQ(std::bit_cast<uint64_t>(a.sum_squares), std::bit_cast<uint64_t>(b.sum_squares)) << what;
  EXPECT_EQ(a.finite_mask, b.finite_mask) << what;
}

std::vector<float> SomeFloats(Random& random, size_t d, int kind) {
  std::vector<float> x(d);
  std::normal_distribution<float> normal;
  for (float& value : x) {
    switch (kind) {
      case 0:
        value = normal(random);
        break;
      case 1:
        value = std::ldexp(normal(random), static_cast<int>(random() % 240) - 120);
        break;  // all magnitudes
      case 2:
        value = std::bit_cast<float>(static_cast<uint32_t>(random() & 0x807fffff));
        break;  // denormals only
      case 3:
        value =
            random() % 2 ? std::numeric_limits<float>::max() : -std::numeric_limits<float>::max();
        break;
      default:
        value = random() % 3 ? 0.0f : -0.0f;
        break;
    }
  }
  return x;
}

TEST(NormsOf, FollowsTheDefinitionOnEveryPath) {
  Random random(1);
  for (const bool flush : {false, true}) {
    const ScopedMxcsr mxcsr(flush);
    for (const size_t d : kWidths) {
      for (int kind = 0; kind < 5; ++kind) {
        const std::vector<float> x = SomeFloats(random, d, kind);
        double abs[16] = {}, squares[16] = {}, max = 0;
        for (size_t i = 0; i < d; ++i) {
          const float magnitude = std::fpclassify(x[i]) == FP_SUBNORMAL ? 0.0f : std::fabs(x[i]);
          max = std::max(max, static_cast<double>(magnitude));
          abs[i % 16] += static_cast<double>(magnitude);
          squares[i % 16] += static_cast<double>(magnitude) * static_cast<double>(magnitude);
        }
        for (size_t half = 8; half > 0; half /= 2) {
          for (size_t l = 0; l < half; ++l)
            abs[l] += abs[l + half], squares[l] += squares[l + half];
        }
        for (const Isa isa : SupportedIsas()) {
          ExpectSameNorms(NormsOf(isa, x.data(), d), {max, abs[0], squares[0], 0xffffffff},
                          std::string(IsaName(isa)) + " d " + std::to_string(d) + " kind " +
                              std::to_string(kind));
        }
      }
    }
  }
}

TEST(NormsOf, ARowThatIsNotFiniteCountsAsZeros) {
  Random random(2);
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0xff800001u)}) {
    for (const size_t d : kWidths) {
      std::vector<float> x = SomeFloats(random, d, 0);
      x[random() % d] = bad;
      for (const Isa isa : SupportedIsas())
        ExpectSameNorms(NormsOf(isa, x.data(), d), RowNorms{}, std::string(IsaName(isa)));
    }
  }
}

// -----------------------------------------------------------------------------------------------------------------
// mask

struct MaskOutput {
  MaskedRow row;
  std::vector<uint8_t> planes, mask;
  bool operator==(const MaskOutput& other) const {
    return row.dot == other.row.dot && row.norms.max_abs == other.row.norms.max_abs &&
           row.norms.sum_abs == other.row.norms.sum_abs &&
           row.norms.sum_squares == other.row.norms.sum_squares && planes == other.planes &&
           mask == other.mask;
  }
};

struct MaskCase {
  std::vector<float> x;
  size_t d_padded;
  uint32_t finite_mask;
  float inverse;
  int delta_log2;
  Row mask;
  bool wipe;
  std::vector<std::vector<uint64_t>> u;

  MaskOutput Run(Isa isa) const {
    Row row = mask;
    std::vector<const uint64_t*> pointers;
    for (const auto& vector : u) pointers.push_back(vector.data());
    MaskOutput out;
    out.planes.assign(6 * d_padded, 0x5a);
    out.row = MaskRow(isa, x.data(), x.size(), d_padded, finite_mask, inverse, delta_log2,
                      row.bytes.data(), row.stride, wipe, pointers.data(), pointers.size(),
                      out.planes.data());
    out.mask = row.bytes;
    return out;
  }
};

MaskCase SomeMaskCase(Random& random, size_t d, size_t vectors, int variant) {
  const size_t strides[] = {192, 192 * 3, 49152};
  const size_t stride = variant % 4 == 3 ? 0 : strides[variant % 4];
  const size_t d_padded = ring::RoundUp(d, 64) + (variant % 5 == 4 ? 64 : 0);
  std::vector<float> x(d);
  const float inverse = variant % 2 == 0 ? 1.0f : 37.25f;
  for (float& value : x) {
    switch (random() % 6) {
      case 0:
        value = (random() % 2 ? 32767.0f : -32767.0f) / inverse;
        break;
      case 1:
        value = (static_cast<float>(static_cast<int>(random() % 2001) - 1000) + 0.5f) / inverse;
        break;  // ties
      case 2:
        value = std::bit_cast<float>(static_cast<uint32_t>(random() & 0x807fffff));
        break;  // denormal
      case 3:
        value = -0.0f;
        break;
      default:
        value = static_cast<float>(static_cast<int>(random() % 65535) - 32767) / inverse;
        break;
    }
  }
  const int delta_log2[] = {0, 1, 18, 24, 31};
  std::vector<std::vector<uint64_t>> u;
  for (size_t i = 0; i < vectors; ++i) u.push_back(SomeVector(random, d, d_padded));
  return {x,
          d_padded,
          0xffffffff,
          inverse,
          delta_log2[variant % 5],
          SomeRow(random, d, stride),
          stride != 0 && variant % 2 == 0,
          u};
}

void ExpectDefinition(MaskCase c, const MaskOutput& got) {
  std::vector<uint64_t> residues(c.d_padded, 0);
  QuantisedNorms norms;
  for (size_t i = 0; i < c.x.size(); ++i) {
    const int64_t h =
        c.finite_mask == 0 ? 0 : static_cast<int64_t>(std::nearbyint(c.x[i] * c.inverse));
    residues[i] = Modulo((static_cast<__int128>(h) << c.delta_log2) + c.mask.Get(i));
    const auto magnitude = static_cast<uint64_t>(std::abs(h));
    norms = {std::max(norms.max_abs, magnitude), norms.sum_abs + magnitude,
             norms.sum_squares + magnitude * magnitude};
  }
  for (size_t i = 0; i < c.d_padded; ++i) {
    uint64_t value = 0;
    for (size_t plane = 6; plane-- > 0;) value = value << 8 | got.planes[plane * c.d_padded + i];
    ASSERT_EQ(value, residues[i]) << "column " << i << " of " << c.x.size();
  }
  for (size_t i = 0; i < kMaxCheckVectors; ++i)
    EXPECT_EQ(got.row.dot[i], i < c.u.size() ? Dot(residues, c.u[i]) : 0);
  EXPECT_EQ(got.row.norms.max_abs, norms.max_abs);
  EXPECT_EQ(got.row.norms.sum_abs, norms.sum_abs);
  EXPECT_EQ(got.row.norms.sum_squares, norms.sum_squares);
  Row after = c.mask;
  if (c.wipe) {
    for (size_t i = 0; i < c.x.size(); i += 32) std::memset(after.At(i), 0, ring::kPanelRowBytes);
  }
  EXPECT_EQ(got.mask, after.bytes);
}

TEST(MaskRow, FollowsTheDefinitionOnEveryPath) {
  Random random(3);
  int variant = 0;
  for (const bool flush : {false, true}) {
    const ScopedMxcsr mxcsr(flush);
    for (const size_t d : kWidths) {
      for (size_t vectors = 0; vectors <= kMaxCheckVectors; ++vectors) {
        for (int repeat = 0; repeat < 4; ++repeat) {
          const MaskCase c = SomeMaskCase(random, d, vectors, variant++);
          const MaskOutput portable = c.Run(Isa::kPortable);
          ExpectDefinition(c, portable);
          for (const Isa isa : SupportedIsas()) {
            EXPECT_TRUE(c.Run(isa) == portable) << IsaName(isa) << " d " << d << " vectors "
                                                << vectors << " variant " << variant - 1;
          }
        }
      }
    }
  }
}

TEST(MaskRow, DoesNotDependOnTheFlushToZeroBits) {
  Random random(4);
  const MaskCase c = SomeMaskCase(random, 576, 2, 0);
  const MaskOutput without = c.Run(Isa::kPortable);
  const ScopedMxcsr mxcsr(true);
  for (const Isa isa : SupportedIsas()) EXPECT_TRUE(c.Run(isa) == without) << IsaName(isa);
}

// Sums that fold more than once, with every term at its largest.
TEST(MaskRow, LargestSumsDoNotOverflow) {
  for (const size_t d : {size_t{32768 - 32}, size_t{32768}, size_t{32769}, size_t{100000}}) {
    MaskCase c{std::vector<float>(d, -1.0f),
               ring::RoundUp(d, 64),
               0xffffffff,
               32767.0f,
               0,
               Row(d, 0),
               false,
               {}};
    for (size_t i = 0; i < 32; ++i) ring::StoreResidue(c.mask.At(i), 32766);  // H~ = q - 1
    for (int i = 0; i < 2; ++i) {
      c.u.emplace_back(d, kQ - 1);
      c.u.back().resize(c.d_padded, 0);
    }
    const MaskOutput portable = c.Run(Isa::kPortable);
    EXPECT_EQ(portable.row.dot[0], d % kQ);  // (-1) (-1) d
    EXPECT_EQ(portable.row.norms.sum_abs, 32767 * d);
    EXPECT_EQ(portable.row.norms.sum_squares, uint64_t{32767} * 32767 * d);
    for (const Isa isa : SupportedIsas())
      EXPECT_TRUE(c.Run(isa) == portable) << IsaName(isa) << " d " << d;
  }
}

TEST(MaskRow, ARowThatIsNotFiniteIsMaskedZeros) {
  Random random(5);
  for (const size_t d : {size_t{33}, size_t{64}, size_t{576}}) {
    MaskCase c = SomeMaskCase(random, d, 2, 0);
    c.x[d / 2] = std::numeric_limits<float>::quiet_NaN();
    c.x[0] = std::numeric_limits<float>::infinity();
    c.finite_mask = 0;
    for (const Isa isa : SupportedIsas()) ExpectDefinition(c, c.Run(isa));
  }
}

// ----------------------------------------------------------------------------------------------------------------
// check

CheckedRow RunCheck(Isa isa, const std::vector<uint64_t>& y,
                    const std::vector<std::vector<uint64_t>>& v) {
  const std::vector<uint8_t> bytes = Pack(y);
  std::vector<const uint64_t*> pointers;
  for (const auto& vector : v) pointers.push_back(vector.data());
  return CheckRow(isa, bytes.data(), y.size(), pointers.data(), pointers.size());
}

TEST(CheckRow, FollowsTheDefinitionOnEveryPath) {
  Random random(6);
  for (const size_t o : {32, 64, 96, 576, 4096, 32768, 32768 + 32, 98304}) {
    for (size_t vectors = 0; vectors <= kMaxCheckVectors; ++vectors) {
      const std::vector<uint64_t> y = SomeVector(random, o, o);
      std::vector<std::vector<uint64_t>> v;
      for (size_t i = 0; i < vectors; ++i) v.push_back(SomeVector(random, o, o));
      for (const Isa isa : SupportedIsas()) {
        const CheckedRow row = RunCheck(isa, y, v);
        EXPECT_EQ(row.canonical_mask, ~uint64_t{0}) << IsaName(isa);
        for (size_t i = 0; i < kMaxCheckVectors; ++i)
          EXPECT_EQ(row.dot[i], i < vectors ? Dot(y, v[i]) : 0) << IsaName(isa) << o;
      }
    }
  }
}

TEST(CheckRow, LargestSumsDoNotOverflow) {
  const size_t o = 32 * 4096;
  const std::vector<uint64_t> y(o, kQ - 1);
  const std::vector<std::vector<uint64_t>> v(2, std::vector<uint64_t>(o, kQ - 1));
  for (const Isa isa : SupportedIsas()) EXPECT_EQ(RunCheck(isa, y, v).dot[1], o) << IsaName(isa);
}

TEST(CheckRow, OneResidueThatIsNotCanonicalShowsAtEveryPlace) {
  Random random(7);
  for (const Isa isa : SupportedIsas()) {
    for (size_t place = 0; place < 64; ++place) {
      for (const uint64_t bad : {kQ, ring::kMask48}) {
        std::vector<uint64_t> y = SomeVector(random, 64, 64);
        y[place] = bad;
        EXPECT_EQ(RunCheck(isa, y, {SomeVector(random, 64, 64)}).canonical_mask, 0u)
            << IsaName(isa) << " " << place;
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------
// unmask

TEST(UnmaskRow, FollowsTheDefinitionOnEveryPath) {
  Random random(8);
  int variant = 0;
  for (const bool flush : {false, true}) {
    const ScopedMxcsr mxcsr(flush);
    for (const size_t o : kWidths) {
      for (int repeat = 0; repeat < 8; ++repeat, ++variant) {
        const int delta_log2_choice[] = {18, 0, 1, 10, 30, 45};
        const int delta_log2 = delta_log2_choice[variant % 6];
        const size_t stride = variant % 3 == 0 ? 0 : variant % 3 == 1 ? 192 : 49152;
        const bool wipe = stride != 0 && repeat % 2 == 0;
        const Row row = SomeRow(random, o, stride);
        const std::vector<uint8_t> y =
            Pack(SomeVector(random, ring::RoundUp(o, 32), ring::RoundUp(o, 32)));
        const float sigma = std::ldexp(1.1f, variant % 7 == 6 ? -120 : -9);
        std::vector<float> scales(o), want(o);
        for (float& scale : scales)
          scale = std::ldexp(1.0f + static_cast<float>(random() % 1000) / 1000,
                             -static_cast<int>(random() % 30));
        Row reader = row;
        for (size_t c = 0; c < o; ++c) {
          __int128 t = (static_cast<__int128>(ring::LoadResidue(&y[6 * c])) - reader.Get(c)) %
                       static_cast<__int128>(kQ);
          if (t > static_cast<__int128>(kQ / 2)) t -= kQ;
          if (t < -static_cast<__int128>(kQ / 2)) t += kQ;
          const auto integer =
              static_cast<int64_t>((t + (int64_t{1} << delta_log2) / 2) >> delta_log2);
          volatile float scale = sigma * scales[c];
          want[c] = static_cast<float>(integer) * scale;
        }
        Row after = row;
        if (wipe) {
          for (size_t c = 0; c < o; c += 32) std::memset(after.At(c), 0, ring::kPanelRowBytes);
        }
        for (const Isa isa : SupportedIsas()) {
          Row used = row;
          std::vector<float> out(o, 7.0f);
          UnmaskRow(isa, y.data(), o, used.bytes.data(), stride, wipe, delta_log2, sigma,
                    scales.data(), out.data());
          EXPECT_EQ(Bits(out), Bits(want))
              << IsaName(isa) << " o " << o << " delta 2^" << delta_log2;
          EXPECT_EQ(used.bytes, after.bytes) << IsaName(isa);
        }
      }
    }
  }
}

// ----------------------------------------------------------------------------------------------------------------
// chain

// h -> H~ with M, Y~ = H~ W exactly, U = (M - E) W: the check holds, and the result is h W to the
// bit.
TEST(Chain, GivesTheIntegerProduct) {
  Random random(9);
  for (const size_t d : {size_t{40}, size_t{64}, size_t{200}}) {
    const size_t o = d + 5, o_padded = ring::RoundUp(o, 32), d_padded = ring::RoundUp(d, 64);
    const int delta_log2 = 21;
    std::vector<std::vector<int>> w(o, std::vector<int>(d));
    for (auto& column : w) {
      for (int& weight : column) weight = static_cast<int>(random() % 255) - 127;
    }
    std::vector<std::vector<uint64_t>> v, u;
    for (int i = 0; i < 2; ++i) {
      v.emplace_back(o_padded);
      for (uint64_t& value : v.back()) value = random() % kQ;
      u.emplace_back(d_padded, 0);
      for (size_t k = 0; k < d; ++k) {
        __int128 sum = 0;
        for (size_t j = 0; j < o; ++j) sum += static_cast<__int128>(w[j][k]) * v.back()[j];
        u.back()[k] = Modulo(sum);
      }
    }
    std::vector<float> x(d);
    // 200 * 2642 * 127 < (q - Delta) / (2 Delta): no product leaves the range, whatever comes.
    for (float& value : x) value = static_cast<float>(static_cast<int>(random() % 5285) - 2642);
    const Row mask = SomeRow(random, d, 192);
    Row reader = mask, unmask(o, 192);
    std::vector<int> error(d);
    for (int& e : error) e = random() % 3 ? static_cast<int>(random() % 43) - 21 : 21;
    for (size_t j = 0; j < o; ++j) {
      __int128 sum = 0;
      for (size_t k = 0; k < d; ++k)
        sum += (static_cast<__int128>(reader.Get(k)) - error[k]) * w[j][k];
      ring::StoreResidue(unmask.At(j), Modulo(sum));
    }
    std::vector<float> scales(o), want(o);
    for (size_t j = 0; j < o; ++j) {
      scales[j] = 1.0f / static_cast<float>(j + 3);
      int64_t sum = 0;
      for (size_t k = 0; k < d; ++k) sum += static_cast<int64_t>(x[k]) * w[j][k];
      volatile float scale = 0.37f * scales[j];
      want[j] = static_cast<float>(sum) * scale;
    }
    for (const Isa isa : SupportedIsas()) {
      const uint64_t* u_pointers[] = {u[0].data(), u[1].data()};
      const uint64_t* v_pointers[] = {v[0].data(), v[1].data()};
      Row used = mask, unmask_used = unmask;
      std::vector<uint8_t> planes(6 * d_padded);
      const MaskedRow masked = MaskRow(isa, x.data(), d, d_padded, 0xffffffff, 1.0f, delta_log2,
                                       used.bytes.data(), 192, true, u_pointers, 2, planes.data());
      std::vector<uint64_t> y(o_padded, 0);
      for (size_t j = 0; j < o; ++j) {
        __int128 sum = 0;
        for (size_t k = 0; k < d; ++k) {
          uint64_t residue = 0;
          for (size_t plane = 6; plane-- > 0;)
            residue = residue << 8 | planes[plane * d_padded + k];
          sum += static_cast<__int128>(residue) * w[j][k];
        }
        y[j] = Modulo(sum);
      }
      std::vector<uint8_t> bytes = Pack(y);
      const CheckedRow checked = CheckRow(isa, bytes.data(), o_padded, v_pointers, 2);
      EXPECT_EQ(checked.canonical_mask, ~uint64_t{0});
      EXPECT_EQ(checked.dot, masked.dot) << IsaName(isa);
      std::vector<float> out(o);
      UnmaskRow(isa, bytes.data(), o, unmask_used.bytes.data(), 192, true, delta_log2, 0.37f,
                scales.data(), out.data());
      EXPECT_EQ(Bits(out), Bits(want)) << IsaName(isa) << " d " << d;

      for (int flip = 0; flip < 50; ++flip) {
        std::vector<uint8_t> wrong = bytes;
        const size_t bit = random() % (o * 48);
        wrong[bit / 8] = static_cast<uint8_t>(wrong[bit / 8] ^ (1 << (bit % 8)));
        const CheckedRow found = CheckRow(isa, wrong.data(), o_padded, v_pointers, 2);
        EXPECT_TRUE(found.dot != masked.dot || found.canonical_mask == 0) << "bit " << bit;
      }
    }
  }
}

}  // namespace
}  // namespace talaria::cvm
