// The parser. Where the other negative cases are: testing.h.
#include "talaria/attest/tdx/quote.h"

#include <gtest/gtest.h>

#include <functional>

#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

using Buffer = std::vector<uint8_t>;

// Offsets in a quote of version 4.
constexpr size_t kAuthSize = 632, kCertificationType = 764, kCertificationSize = 766;
constexpr size_t kQeAuthSize = 1218, kPckType = 1252, kPckSize = 1254;

std::string ReasonOfParse(Bytes quote) {
  const Result<TdxQuote> parsed = ParseTdxQuote(quote);
  return parsed.ok() ? "accepted" : std::string(ReasonOf(parsed.status()));
}

uint32_t U32At(const Buffer& bytes, size_t at) { return LoadLe<uint32_t>(bytes.data() + at); }
void PutU32(Buffer& bytes, size_t at, uint32_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}
void PutU16(Buffer& bytes, size_t at, uint16_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}
std::string ReasonWithU16(Buffer bytes, size_t at, uint16_t value) {
  PutU16(bytes, at, value);
  return ReasonOfParse(bytes);
}
std::string ReasonWithU32(Buffer bytes, size_t at, uint32_t value) {
  PutU32(bytes, at, value);
  return ReasonOfParse(bytes);
}

class TdxQuoteTest : public testing::Test {
 protected:
  const Buffer v4_ = TdxVector("v4_uptodate");
  const Buffer v5_ = TdxVector("v5_2026");
};

TEST_F(TdxQuoteTest, EncodesToTheSameBytes) {
  for (const std::string_view name : kTdxVectors) {
    const Buffer bytes = TdxVector(name);
    const Result<TdxQuote> quote = ParseTdxQuote(bytes);
    ASSERT_TRUE(quote.ok()) << name << ": " << quote.status().ToString();
    const Buffer again = EncodeTdxQuote(*quote);
    EXPECT_EQ(again.size(), quote->canonical_bytes);
    EXPECT_TRUE(std::equal(again.begin(), again.end(), bytes.begin())) << name;
    EXPECT_EQ(EncodeTdxSignedPart(*quote), quote->signed_part) << name;
  }
}

TEST_F(TdxQuoteTest, Version5WithABodyOfTdx10) {
  TdxPlan plan = DefaultTdxPlan();
  plan.quote.body.tdx15.reset();
  const TdxWorld world = BuildTdxWorld(plan);
  const Result<TdxQuote> quote = ParseTdxQuote(world.quote);
  ASSERT_TRUE(quote.ok()) << quote.status().ToString();
  EXPECT_EQ(quote->body, plan.quote.body);
  EXPECT_EQ(ReasonOfVerify(world), "accepted");
}

TEST_F(TdxQuoteTest, Case29_TruncatedAnywhere) {
  for (const Buffer& quote : {v4_, v5_}) {
    EXPECT_EQ(ReasonOfParse({}), "tdx-quote-size");
    const size_t canonical = ParseTdxQuote(quote)->canonical_bytes;
    for (size_t size = 1; size < canonical; ++size) {
      ASSERT_EQ(ReasonOfParse(Bytes(quote).first(size)), "tdx-quote-truncated") << size;
    }
  }
}

TEST_F(TdxQuoteTest, Case29_AuthSize) {
  const uint32_t size = U32At(v4_, kAuthSize);
  EXPECT_EQ(ReasonWithU32(v4_, kAuthSize, 0), "tdx-quote-length");
  EXPECT_EQ(ReasonWithU32(v4_, kAuthSize, 133), "tdx-quote-length");
  EXPECT_EQ(ReasonWithU32(v4_, kAuthSize, 134), "tdx-quote-length");
  EXPECT_EQ(ReasonWithU32(v4_, kAuthSize, size - 1), "tdx-quote-length");
  EXPECT_EQ(ReasonWithU32(v4_, kAuthSize, size + 1), "tdx-quote-truncated");
  EXPECT_EQ(ReasonWithU32(v4_, kAuthSize, 0xffffffff), "tdx-quote-truncated");
  Buffer padded = v4_;
  padded.push_back(0);
  EXPECT_EQ(ReasonWithU32(padded, kAuthSize, size + 1), "tdx-quote-length");
}

TEST_F(TdxQuoteTest, Case29_NestedSizesAddUpExactly) {
  const uint32_t outer = U32At(v4_, kCertificationSize), pem = U32At(v4_, kPckSize);
  for (const uint32_t wrong : {0u, 1u, 448u, outer - 1, outer + 1, 0x7fffffffu, 0xffffffffu}) {
    EXPECT_EQ(ReasonWithU32(v4_, kCertificationSize, wrong), "tdx-quote-length") << wrong;
  }
  for (const uint32_t wrong : {0u, 1u, pem - 1, pem + 1, 0x7fffffffu, 0xffffffffu}) {
    EXPECT_EQ(ReasonWithU32(v4_, kPckSize, wrong), "tdx-quote-length") << wrong;
  }
  EXPECT_EQ(ReasonWithU16(v4_, kQeAuthSize, 0xffff), "tdx-quote-length");
  // Another size moves what follows: its type is no longer read where it stands.
  EXPECT_EQ(ReasonWithU16(v4_, kQeAuthSize, 31), "tdx-quote-certification");
  EXPECT_EQ(ReasonWithU16(v4_, kQeAuthSize, 33), "tdx-quote-certification");
  EXPECT_EQ(ReasonWithU16(v4_, kQeAuthSize, 0), "tdx-quote-certification");
  // An auth section that ends inside the QE's certification, consistently.
  Buffer shorter(v4_.begin(), v4_.begin() + 770 + 100);
  PutU32(shorter, kAuthSize, 134 + 100);
  PutU32(shorter, kCertificationSize, 100);
  EXPECT_EQ(ReasonOfParse(shorter), "tdx-quote-length");
}

TEST_F(TdxQuoteTest, Case30_TrailingBytes) {
  for (size_t zeros : {1, 70, 3000}) {
    Buffer padded = v4_;
    padded.resize(v4_.size() + zeros);
    const Result<TdxQuote> quote = ParseTdxQuote(padded);
    ASSERT_TRUE(quote.ok());
    EXPECT_EQ(quote->canonical_bytes, v4_.size());
    for (const size_t at : {v4_.size(), padded.size() - 1}) {
      Buffer dirty = padded;
      dirty[at] = 1;
      EXPECT_EQ(ReasonOfParse(dirty), "tdx-quote-trailing");
    }
  }
  EXPECT_EQ(ReasonOfParse(TdxVector("v4_spr_2022", "quote_as_published.bin")),
            "tdx-quote-trailing");
  EXPECT_EQ(ReasonOfParse(TdxVector("v4_gcp_nonce", "quote_as_published.bin")), "accepted");
}

TEST_F(TdxQuoteTest, Case31_Header) {
  for (const uint16_t version : std::initializer_list<uint16_t>{0, 1, 3, 6, 0xffff}) {
    EXPECT_EQ(ReasonWithU16(v4_, 0, version), "tdx-quote-version") << version;
  }
  for (const uint16_t type : std::initializer_list<uint16_t>{0, 1, 3, 4}) {
    EXPECT_EQ(ReasonWithU16(v4_, 2, type), "tdx-quote-key-type") << type;
  }
  for (const uint32_t tee : {0u, 0x80u, 0x82u, 0x81000000u}) {
    EXPECT_EQ(ReasonWithU32(v4_, 4, tee), "tdx-quote-tee-type") << tee;
  }
  for (size_t at = 8; at < 12; ++at) {
    Buffer bytes = v4_;
    bytes[at] = 1;
    EXPECT_EQ(ReasonOfParse(bytes), "tdx-quote-reserved");
  }
  for (size_t at = 12; at < 28; ++at) {
    Buffer bytes = v4_;
    bytes[at] ^= 1;
    EXPECT_EQ(ReasonOfParse(bytes), "tdx-quote-vendor");
  }
}

TEST_F(TdxQuoteTest, Case31_BodyTypeAndSize) {
  struct Wrong {
    uint16_t type;
    uint32_t size;
  };
  for (const Wrong wrong : {Wrong{1, 384},
                            {1, 648},
                            {4, 885},
                            {4, 648},
                            {2, 648},
                            {3, 584},
                            {0, 648},
                            {3, 647},
                            {3, 649},
                            {3, 0},
                            {3, 0xffffffff}}) {
    Buffer bytes = v5_;
    PutU16(bytes, 48, wrong.type);
    PutU32(bytes, 50, wrong.size);
    EXPECT_EQ(ReasonOfParse(bytes), "tdx-quote-body") << wrong.type << " " << wrong.size;
  }
  // A version 4 taken for a 5, and the reverse.
  EXPECT_EQ(ReasonWithU16(v4_, 0, 5), "tdx-quote-body");
  EXPECT_EQ(ReasonWithU16(v5_, 0, 4), "tdx-quote-truncated");
}

TEST_F(TdxQuoteTest, Case32_CertificationTypes) {
  ASSERT_EQ(LoadLe<uint16_t>(v4_.data() + kCertificationType), 6);
  ASSERT_EQ(LoadLe<uint16_t>(v4_.data() + kPckType), 5);
  for (const uint16_t type : std::initializer_list<uint16_t>{0, 1, 2, 3, 4, 5, 7, 0x0600}) {
    EXPECT_EQ(ReasonWithU16(v4_, kCertificationType, type), "tdx-quote-certification") << type;
  }
  for (const uint16_t type : std::initializer_list<uint16_t>{0, 1, 2, 3, 4, 6, 7, 0x0500}) {
    EXPECT_EQ(ReasonWithU16(v4_, kPckType, type), "tdx-quote-certification") << type;
  }
}

TEST_F(TdxQuoteTest, Case33_AMebibyteOfPemIsNotReadAtAll) {
  TdxQuote quote = *ParseTdxQuote(v4_);
  quote.pck_chain_pem.resize(1 << 20, 'A');
  EXPECT_EQ(ReasonOfParse(EncodeTdxQuote(quote)), "tdx-quote-size");
  Buffer padded = v4_;
  padded.resize(kMaxReportBytes);
  EXPECT_EQ(ReasonOfParse(padded), "accepted");
  padded.push_back(0);
  EXPECT_EQ(ReasonOfParse(padded), "tdx-quote-size");
}

}  // namespace
}  // namespace talaria::attest
