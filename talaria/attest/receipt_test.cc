#include "talaria/attest/receipt.h"

#include <gtest/gtest.h>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

template <size_t N>
std::array<uint8_t, N> Filled(uint8_t value) {
  std::array<uint8_t, N> out;
  out.fill(value);
  return out;
}

Receipt Sample() {
  return {.time = 0x0102030405,
          .nonce = Filled<32>(0x11),
          .exporter = Filled<32>(0x22),
          .peer_key = Filled<32>(0x33),
          .key = Filled<91>(0x44),
          .exchange = {"/v1/x", 200, Filled<32>(0x55), Filled<32>(0x66)},
          .claim = {{.version = kAttestationVersion,
                     .model_identity = Filled<32>(0x77),
                     .profile = 1,
                     .check_vectors = 2,
                     .configuration = Filled<32>(0x88),
                     .tenant_key = Filled<32>(0x99),
                     .development = false},
                    {EvidenceType::kSimulated, {0xaa, 0xbb}, {0xcc}}},
          .signature = Filled<64>(0xdd)};
}

std::string Repeated(const char* byte, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += byte;
  return out;
}

std::string GoldenWithoutSignature() {
  return "0100" + std::string("0504030201000000") + Repeated("11", 32) + Repeated("22", 32) +
         Repeated("33", 32) + Repeated("44", 91) + "05" + "2f76312f78" + "c800" +
         Repeated("55", 32) + Repeated("66", 32) +                                    // exchange
         "0100" + Repeated("77", 32) + "0100" + "02" + Repeated("88", 32) +           // context
         Repeated("99", 32) + "00" + "80" + "02000000" + "aabb" + "01000000" + "cc";  // evidence
}

std::string Reason(Bytes bytes) {
  const auto receipt = DecodeReceipt(bytes);
  return receipt.ok() ? "" : std::string(ReasonOf(receipt.status()));
}

TEST(Receipt, EncodesAsWritten) {
  EXPECT_EQ(ToHex(Encode(Sample())), GoldenWithoutSignature() + Repeated("dd", 64));
  EXPECT_EQ(ToHex(SignedBytes(Sample())),
            ToHex(AsBytes("talaria-receipt-v1")) + "00" + GoldenWithoutSignature());
}

TEST(Receipt, DecodesWhatItEncodes) {
  const std::vector<uint8_t> bytes = Encode(Sample());
  const auto receipt = DecodeReceipt(bytes);
  ASSERT_TRUE(receipt.ok()) << receipt.status().ToString();
  EXPECT_EQ(Encode(*receipt), bytes);
  EXPECT_EQ(receipt->exchange, Sample().exchange);
  EXPECT_EQ(receipt->time, Sample().time);
}

TEST(Receipt, RefusesEveryOtherLength) {
  std::vector<uint8_t> bytes = Encode(Sample());
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_NE(Reason(Bytes(bytes).first(size)), "") << size;
  bytes.push_back(0);
  EXPECT_NE(Reason(bytes), "");
}

TEST(Receipt, RefusesWhatIsOutOfRange) {
  const std::vector<uint8_t> good = Encode(Sample());
  const size_t path = 2 + 8 + 96 + kSpkiBytes;  // its size
  const auto with = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> bytes = good;
    bytes[at] = value;
    return Reason(bytes);
  };
  EXPECT_EQ(with(0, 2), "receipt-format") << "version";
  EXPECT_EQ(with(9, 0x80), "receipt-format") << "a time before 1970";
  EXPECT_EQ(with(path + 1, ' '), "receipt-format");
  EXPECT_EQ(with(path + 1, 0x80), "receipt-format");
  EXPECT_EQ(with(path + 6, 99), "receipt-format") << "status 99" << Reason(good);
  EXPECT_EQ(with(path + 7, 3), "receipt-format") << "status 968";
  Receipt receipt = Sample();
  receipt.exchange.path = std::string(kMaxReceiptPathBytes, 'x');
  EXPECT_EQ(Reason(Encode(receipt)), "");
  receipt.claim.evidence.report.clear();
  EXPECT_EQ(Reason(Encode(receipt)), "evidence-format");
  receipt.claim.context.version = 2;
  EXPECT_EQ(Reason(Encode(receipt)), "context-format");
}

TEST(Receipt, HashesRequestAndAnswerUnderTheSalt) {
  const auto of = [](Sha256 hash, std::string_view body) {
    hash.Update(AsBytes(body));
    return hash.Finish();
  };
  const Salt salt = Filled<32>(0x5a);
  const std::string salted(32, '\x5a');
  const std::string request{"talaria-receipt-request-v1\0", 27};
  const std::string response{"talaria-receipt-response-v1\0", 28};
  EXPECT_EQ(of(RequestHash(salt), "{}"), Sha256Of(AsBytes(request + salted + "{}")));
  EXPECT_EQ(of(ResponseHash(salt), "{}"), Sha256Of(AsBytes(response + salted + "{}")));
}

}  // namespace
}  // namespace talaria::attest
