#include "talaria/ring/aes_ctr.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace talaria::ring {
namespace {

using Key = std::array<uint8_t, 32>;
using Block = std::array<uint8_t, 16>;

Key KeyFromHex(const std::string& text) {
  Key key{};
  EXPECT_TRUE(FromHex(text, key));
  return key;
}

std::string StreamHex(const Key& key, uint64_t iv_high, size_t size) {
  std::vector<uint8_t> bytes(size, 0xee);
  AesCtrStream(key, iv_high).Next(bytes);
  return ToHex(bytes);
}

// One block of AES-256, without counter mode.
Block EncryptBlock(const Key& key, const Block& input) {
  Block output{};
  int written = 0;
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  EXPECT_EQ(EVP_EncryptInit_ex(context, EVP_aes_256_ecb(), nullptr, key.data(), nullptr), 1);
  EXPECT_EQ(EVP_EncryptUpdate(context, output.data(), &written, input.data(), 16), 1);
  EVP_CIPHER_CTX_free(context);
  return output;
}

Block CounterBlock(uint64_t high, uint64_t low) {
  Block block{};
  for (size_t i = 0; i < 8; ++i) {
    block[i] = static_cast<uint8_t>(high >> (56 - 8 * i));
    block[8 + i] = static_cast<uint8_t>(low >> (56 - 8 * i));
  }
  return block;
}

// NIST AESAVS, appendices B to D: the plain texts that can be a first counter block.
TEST(AesCtr, EqualsPublishedVectors) {
  const Key zero{};
  EXPECT_EQ(StreamHex(zero, 0x8000000000000000, 16), "ddc6bf790c15760d8d9aeb6f9a75fd4e");
  EXPECT_EQ(StreamHex(KeyFromHex("80000000000000000000000000000000"
                                 "00000000000000000000000000000000"),
                      0, 16),
            "e35a6dcb19b201a01ebcfa8aa22b5759");
}

// NIST SP 800-38A, F.5.5. Its counter does not start at 0, so it vouches for EncryptBlock, and that
// for the stream.
TEST(AesCtr, EqualsBlocksOfAes) {
  const Key key = KeyFromHex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  const std::string plain_text = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
  const std::string cipher_text =
      "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5";
  std::array<uint8_t, 32> bytes{};
  ASSERT_TRUE(FromHex(plain_text, bytes));
  for (uint64_t block = 0; block < 2; ++block) {
    const Block pad =
        EncryptBlock(key, CounterBlock(0xf0f1f2f3f4f5f6f7, 0xf8f9fafbfcfdfeff + block));
    for (size_t i = 0; i < 16; ++i) bytes[16 * block + i] ^= pad[i];
  }
  EXPECT_EQ(ToHex(bytes), cipher_text);

  constexpr size_t kBlocks = 1000;  // more than one chunk, and than one byte of the counter
  std::vector<uint8_t> stream(16 * kBlocks);
  AesCtrStream(key, 0xf0f1f2f3f4f5f6f7).Next(stream);
  for (uint64_t block = 0; block < kBlocks; ++block) {
    const Block pad = EncryptBlock(key, CounterBlock(0xf0f1f2f3f4f5f6f7, block));
    ASSERT_TRUE(std::equal(pad.begin(), pad.end(), stream.begin() + 16 * block)) << block;
  }
}

TEST(AesCtr, PiecesMakeTheSameStream) {
  const Key key = KeyFromHex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  std::vector<uint8_t> whole(40000);
  AesCtrStream(key, 7).Next(whole);
  AesCtrStream stream(key, 7);
  std::vector<uint8_t> pieces(whole.size(), 0xee);
  size_t at = 0;
  for (size_t size = 0; at < pieces.size(); size = size * 2 + 1) {
    size = std::min(size, pieces.size() - at);
    stream.Next(MutableBytes(pieces).subspan(at, size));
    at += size;
  }
  EXPECT_EQ(pieces, whole);
}

TEST(AesCtr, RestartsAndMoves) {
  const Key key = KeyFromHex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  AesCtrStream first(key, 1);
  std::vector<uint8_t> bytes(100);
  first.Next(bytes);
  first.Restart(2);
  AesCtrStream second(std::move(first));
  second.Next(bytes);
  EXPECT_EQ(ToHex(bytes), StreamHex(key, 2, 100));
  EXPECT_NE(ToHex(bytes), StreamHex(key, 1, 100));
}

}  // namespace
}  // namespace talaria::ring
