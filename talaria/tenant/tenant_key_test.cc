#include "talaria/tenant/tenant_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "talaria/base/file.h"
#include "talaria/tenant/testing/tenant_testing.h"

namespace talaria::tenant {
namespace {

using testing::Folder;
using ::testing::HasSubstr;

TEST(TenantKeyTest, SignsAsTheRfcSays) {
  const TenantKey key = testing::FixedKey();
  EXPECT_EQ(ToHex(Bytes(key.public_key())), testing::kPublicKeyHex);
  // RFC 8032, section 7.1, test 1: the empty message.
  EXPECT_EQ(
      ToHex(Bytes(key.Sign({}, {}).value())),
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
      "1cf9b46bd25bf5f0595bbe24655141438e7a100b");
}

TEST(TenantKeyTest, VerifiesItsOwnSignaturesAndNoOther) {
  const TenantKey key = testing::FixedKey(), other = TenantKey::Generate().value();
  const Bytes message = AsBytes("message");
  Signature signature = key.Sign("domain", message).value();
  EXPECT_TRUE(Verify(key.public_key(), "domain", message, signature));
  EXPECT_FALSE(Verify(other.public_key(), "domain", message, signature));
  EXPECT_FALSE(Verify(key.public_key(), "domaim", message, signature));
  EXPECT_FALSE(Verify(key.public_key(), "domain", AsBytes("messagf"), signature));
  EXPECT_FALSE(Verify(key.public_key(), "domain", message, Bytes(signature).first(63)));
  EXPECT_FALSE(Verify(key.public_key(), "domain", message, {}));
  for (size_t i = 0; i < signature.size(); ++i) {
    signature[i] ^= 1;
    EXPECT_FALSE(Verify(key.public_key(), "domain", message, signature)) << i;
    signature[i] ^= 1;
  }
}

// R the neutral point and S = 0 is a signature of everybody's under such a key.
TEST(TenantKeyTest, KeysThatAnybodyCanSignUnderAreRefused) {
  Signature forged{};
  forged[0] = 1;
  PublicKey key{};
  EXPECT_EQ(CheckPublicKey(key).code(), Code::kInvalidArgument);
  for (uint8_t i = 0; i < 64; ++i) EXPECT_FALSE(Verify(key, {}, Bytes(&i, 1), forged)) << int{i};
  for (const char* text : {"0100000000000000000000000000000000000000000000000000000000000000",
                           "0000000000000000000000000000000000000000000000000000000000000080",
                           "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
                           "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                           "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}) {
    ASSERT_TRUE(FromHex(text, key));
    EXPECT_EQ(CheckPublicKey(key).code(), Code::kInvalidArgument) << text;
  }
  EXPECT_TRUE(CheckPublicKey(testing::FixedKey().public_key()).ok());
}

TEST(TenantKeyTest, EveryKeyIsAnother) {
  std::set<PublicKey> keys;
  for (int i = 0; i < 8; ++i) keys.insert(TenantKey::Generate()->public_key());
  EXPECT_EQ(keys.size(), 8u);
}

TEST(TenantKeyTest, AFileKeepsIt) {
  const Folder folder;
  const std::string path = folder.path() + "/key.pem";
  const TenantKey key = TenantKey::Generate().value();
  ASSERT_TRUE(key.ToPemFile(path).ok());
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(TenantKey::FromPemFile(path)->public_key(), key.public_key());
  EXPECT_EQ(key.ToPemFile(path).code(), Code::kIo) << "an old key must not be lost";
  EXPECT_EQ(key.ToPemFile(folder.path() + "/no/key.pem").code(), Code::kIo);
}

TEST(TenantKeyTest, RefusesOtherFiles) {
  const Folder folder;
  const auto code = [&](const std::string& text, mode_t mode = 0600) {
    return TenantKey::FromPemFile(folder.Write("file", text, mode)).status().code();
  };
  EXPECT_EQ(code(testing::kPrivatePem), Code::kOk);
  EXPECT_EQ(code(testing::kPrivatePem, 0640), Code::kInvalidArgument);
  EXPECT_EQ(code(testing::kPrivatePem, 0604), Code::kInvalidArgument);
  EXPECT_EQ(code(""), Code::kCorrupt);
  EXPECT_EQ(code(std::string(testing::kPrivatePem).substr(0, 60)), Code::kCorrupt);
  EXPECT_EQ(code(std::string(testing::kPrivatePem) + "more"), Code::kCorrupt);
  EXPECT_EQ(code(std::string(5000, '-')), Code::kCorrupt);
  EXPECT_EQ(code("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), Code::kUnsupported);
  // X25519: the same bytes, another algorithm.
  EXPECT_EQ(code("-----BEGIN PRIVATE KEY-----\n"
                 "MC4CAQAwBQYDK2VuBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                 "-----END PRIVATE KEY-----\n"),
            Code::kUnsupported);
  EXPECT_EQ(TenantKey::FromPemFile(folder.path() + "/none").status().code(), Code::kNotFound);
}

TEST(TenantKeyTest, ErrorsNameTheFileAndNothingInIt) {
  const Folder folder;
  const std::string path = folder.Write("file", "CANARY");
  const std::string message = TenantKey::FromPemFile(path).status().message();
  EXPECT_THAT(message, HasSubstr(path));
  EXPECT_THAT(message, ::testing::Not(HasSubstr("CANARY")));
}

TEST(TenantKeyTest, PublicHalvesAsFiles) {
  const std::string path =
      ::testing::TempDir() + "/talaria_public_key." + std::to_string(getpid()) + ".pem";
  const auto write = [&](const std::string& text) { std::ofstream(path) << text; };
  const PublicKey key = testing::FixedKey().public_key();
  const std::string pem = PublicKeyPem(key).value();
  write(pem);
  EXPECT_EQ(PublicKeyFromPemFile(path).value(), key);
  const auto code = [&](const std::string& text) {
    write(text);
    return PublicKeyFromPemFile(path).status().code();
  };
  EXPECT_EQ(code(pem + pem), Code::kCorrupt);
  EXPECT_EQ(code("x" + pem), Code::kCorrupt);
  EXPECT_EQ(code(pem.substr(0, 60)), Code::kCorrupt);
  EXPECT_EQ(code(""), Code::kCorrupt);
  EXPECT_EQ(code(std::string(5000, 'x')), Code::kResourceExhausted);
  EXPECT_EQ(code(PublicKeyPem(PublicKey{}).value()), Code::kInvalidArgument);
  // P-256.
  EXPECT_EQ(code("-----BEGIN PUBLIC KEY-----\n"
                 "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQLzlz7lvIuO7bOEaZoPZT0tEB3Lv"
                 "0LCoMgOPCmzfGVv3GydOx23ilEscM70qq5vtEafq/Kje7+NAfae6/vsmFA==\n-----END PUBLIC "
                 "KEY-----\n"),
            Code::kUnsupported);
  std::filesystem::remove(path);
  EXPECT_EQ(PublicKeyFromPemFile(path).status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace talaria::tenant
