#include "talaria/wire/tls_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "talaria/base/testing/temp_folder.h"
#include "talaria/wire/tls_context.h"

namespace talaria::wire {
namespace {

using testing::HasSubstr;

class TlsKeyTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.File(name); }
  std::string Write(const std::string& text, mode_t mode = 0600) const {
    const std::string path = Path("written.pem");
    std::filesystem::remove(path);
    std::ofstream(path) << text;
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  static std::string Read(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  Code CodeOf(const std::string& text) const {
    return TlsKey::FromPemFile(Write(text)).status().code();
  }

 private:
  const TempFolder folder_;
};

std::string Text(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

std::string PrivatePem(const EVP_PKEY* key, const char* password = nullptr) {
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  EXPECT_EQ(PEM_write_bio_PKCS8PrivateKey(bio.get(), key, password ? EVP_aes_256_cbc() : nullptr,
                                          password, password ? 1 : 0, nullptr, nullptr),
            1);
  return Text(bio.get());
}

std::string Sec1Pem(EVP_PKEY* key) {
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  EXPECT_EQ(
      PEM_write_bio_PrivateKey_traditional(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr),
      1);
  return Text(bio.get());
}

TEST_F(TlsKeyTest, EveryKeyIsAnotherOne) {
  const Result<TlsKey> a = TlsKey::Generate(), b = TlsKey::Generate();
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->spki_sha256(), b->spki_sha256());
  EXPECT_NE(a->spki_sha256(), Digest{});
  static_assert(!std::is_copy_constructible_v<TlsKey> && !std::is_copy_assignable_v<TlsKey>);
}

TEST_F(TlsKeyTest, SignsWithTheKeyThatItNames) {
  const TlsKey key = TlsKey::Generate().value();
  EXPECT_EQ(Sha256Of(key.spki()), key.spki_sha256());
  const auto a = key.Sign(AsBytes("message")), b = key.Sign(AsBytes("message"));
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(*a, *b) << "a new random number in each";
}

// What a handshake or a certificate signs can be had from nobody who asks for a signature.
TEST(TlsKeyDeathTest, SignsNothingThatTlsSigns) {
  const TlsKey key = TlsKey::Generate().value();
  EXPECT_DEATH((void)key.Sign(AsBytes(std::string(64, ' ') + "TLS 1.3, server CertificateVerify")),
               "");
  EXPECT_DEATH((void)key.Sign(AsBytes("0")), "");
  EXPECT_DEATH((void)key.Sign({}), "");
}

TEST_F(TlsKeyTest, ToFileAndBack) {
  const TlsKey key = TlsKey::Generate().value();
  const std::string path = Path("key.pem");
  ASSERT_TRUE(key.ToPemFile(path).ok());
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  const Result<TlsKey> back = TlsKey::FromPemFile(path);
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(back->spki_sha256(), key.spki_sha256());
  EXPECT_EQ(back->PublicKeyPem(), key.PublicKeyPem());
}

TEST_F(TlsKeyTest, NoFileIsOverwritten) {
  const TlsKey key = TlsKey::Generate().value();
  const std::string path = Write("precious");
  EXPECT_EQ(key.ToPemFile(path).code(), Code::kIo);
  EXPECT_EQ(Read(path), "precious");
  EXPECT_EQ(key.ToPemFile(Path("no/such/folder")).code(), Code::kIo);
}

TEST_F(TlsKeyTest, AFileThatOthersMayUseIsRefused) {
  const std::string pem = PrivatePem(Owned<EVP_PKEY>(EVP_EC_gen("P-256")).get());
  for (const mode_t mode : {0644, 0640, 0604, 0620, 0602, 0610, 0601, 0666}) {
    const Status status = TlsKey::FromPemFile(Write(pem, mode)).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << mode;
    EXPECT_THAT(status.message(), HasSubstr("chmod 600"));
  }
  for (const mode_t mode : {0600, 0400, 0700}) {
    EXPECT_TRUE(TlsKey::FromPemFile(Write(pem, mode)).ok()) << mode;
  }
}

TEST_F(TlsKeyTest, BothFormsOfAPrivateKey) {
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const Digest digest = Sha256Of(SpkiOf(key.get()));
  EXPECT_EQ(TlsKey::FromPemFile(Write(PrivatePem(key.get()))).value().spki_sha256(), digest);
  EXPECT_EQ(TlsKey::FromPemFile(Write(Sec1Pem(key.get()))).value().spki_sha256(), digest);
  EXPECT_TRUE(TlsKey::FromPemFile(Write(PrivatePem(key.get()) + "\r\n \n")).ok());
}

TEST_F(TlsKeyTest, OtherKeysAreRefused) {
  const Owned<EVP_PKEY> p384(EVP_EC_gen("P-384")), k256(EVP_EC_gen("secp256k1")),
      rsa(EVP_RSA_gen(2048)), p256(EVP_EC_gen("P-256"));
  for (EVP_PKEY* key : {p384.get(), k256.get(), rsa.get()}) {
    EXPECT_EQ(CodeOf(PrivatePem(key)), Code::kUnsupported);
    EXPECT_EQ(CodeOf(Sec1Pem(key)), Code::kUnsupported);
  }
  const Status encrypted = TlsKey::FromPemFile(Write(PrivatePem(p256.get(), "secret"))).status();
  EXPECT_EQ(encrypted.code(), Code::kUnsupported);
  EXPECT_THAT(encrypted.message(), HasSubstr("encrypted"));
}

TEST_F(TlsKeyTest, AnythingElseIsCorrupt) {
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const std::string pem = PrivatePem(key.get());
  EXPECT_EQ(CodeOf(""), Code::kCorrupt);
  EXPECT_EQ(CodeOf("hello"), Code::kCorrupt);
  EXPECT_EQ(CodeOf(pem + pem), Code::kCorrupt);
  EXPECT_EQ(CodeOf(pem + "x"), Code::kCorrupt);
  EXPECT_EQ(CodeOf("x" + pem), Code::kCorrupt);
  EXPECT_EQ(CodeOf(std::string(20000, '\n')), Code::kCorrupt);
  EXPECT_EQ(CodeOf(TlsKey::Generate().value().PublicKeyPem()), Code::kCorrupt);
  for (size_t size = 0; size + 2 < pem.size(); size += 7) {
    EXPECT_EQ(CodeOf(pem.substr(0, size)), Code::kCorrupt) << size;
  }
  EXPECT_EQ(TlsKey::FromPemFile(Path("none")).status().code(), Code::kNotFound);
}

TEST_F(TlsKeyTest, AKeyThatContradictsItselfIsCorrupt) {
  const Owned<EVP_PKEY> one(EVP_EC_gen("P-256")), two(EVP_EC_gen("P-256"));
  uint8_t point[65];
  size_t size = 0;
  ASSERT_EQ(EVP_PKEY_get_octet_string_param(two.get(), "pub", point, sizeof(point), &size), 1);
  ASSERT_EQ(EVP_PKEY_set1_encoded_public_key(one.get(), point, size), 1);
  const Status status = TlsKey::FromPemFile(Write(PrivatePem(one.get()))).status();
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr("contradicts"));
}

TEST_F(TlsKeyTest, ThePinOfAPublicKeyAndOfACertificate) {
  const TlsKey key = TlsKey::Generate().value();
  const Result<Digest> pin = SpkiDigestFromPemFile(Write(key.PublicKeyPem(), 0644));
  ASSERT_TRUE(pin.ok()) << pin.status().ToString();
  EXPECT_EQ(*pin, key.spki_sha256());

  const Owned<EVP_PKEY> other(EVP_EC_gen("P-256"));
  const Owned<X509> certificate(X509_new());
  ASSERT_NE(X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0), nullptr);
  ASSERT_NE(X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 60), nullptr);
  ASSERT_EQ(X509_set_pubkey(certificate.get(), other.get()), 1);
  ASSERT_GT(X509_sign(certificate.get(), other.get(), EVP_sha256()), 0);
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  ASSERT_EQ(PEM_write_bio_X509(bio.get(), certificate.get()), 1);
  EXPECT_EQ(SpkiDigestFromPemFile(Write(Text(bio.get()), 0644)).value(),
            Sha256Of(SpkiOf(other.get())));
}

TEST_F(TlsKeyTest, APinOfAnythingElseIsRefused) {
  const auto code = [&](const std::string& text) {
    return SpkiDigestFromPemFile(Write(text)).status().code();
  };
  const Owned<BIO> rsa(BIO_new(BIO_s_mem())), compressed(BIO_new(BIO_s_mem()));
  ASSERT_EQ(PEM_write_bio_PUBKEY(rsa.get(), Owned<EVP_PKEY>(EVP_RSA_gen(2048)).get()), 1);
  EXPECT_EQ(code(Text(rsa.get())), Code::kUnsupported);
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  ASSERT_EQ(EVP_PKEY_set_utf8_string_param(key.get(), "point-format", "compressed"), 1);
  ASSERT_EQ(PEM_write_bio_PUBKEY(compressed.get(), key.get()), 1);
  EXPECT_EQ(code(Text(compressed.get())), Code::kUnsupported);
  const std::string good = TlsKey::Generate().value().PublicKeyPem();
  EXPECT_EQ(code(good + good), Code::kCorrupt);
  EXPECT_EQ(code(""), Code::kCorrupt);
  EXPECT_EQ(code(good.substr(0, good.size() / 2)), Code::kCorrupt);
  EXPECT_EQ(code(PrivatePem(Owned<EVP_PKEY>(EVP_EC_gen("P-256")).get())), Code::kCorrupt);
  EXPECT_EQ(SpkiDigestFromPemFile(Path("none")).status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace talaria::wire
