#include "talaria/ring/aes_ctr.h"

#include <algorithm>
#include <cstring>

#include "talaria/base/openssl.h"

namespace talaria::ring {
namespace {

// Small enough that the zeros that are encrypted, and the stream itself, stay in the L1 cache.
constexpr size_t kChunkBytes = 8192;

// Looked up once per process; OpenSSL would otherwise search its providers at every start.
const EVP_CIPHER* Aes256Ctr() {
  static const EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-256-CTR", nullptr);
  return cipher;
}

void FirstBlock(uint64_t iv_high, uint8_t block[16]) {
  for (int i = 0; i < 8; ++i) block[i] = static_cast<uint8_t>(iv_high >> (56 - 8 * i));
  std::memset(block + 8, 0, 8);
}

}  // namespace

// OpenSSL fails here only without memory or without AES; neither leaves anything to go on with.
struct AesCtrStream::Impl {
  Owned<EVP_CIPHER_CTX> context{EVP_CIPHER_CTX_new()};
};

AesCtrStream::AesCtrStream(std::span<const uint8_t, 32> key, uint64_t iv_high)
    : impl_(std::make_unique<Impl>()) {
  uint8_t block[16];
  FirstBlock(iv_high, block);
  TALARIA_CHECK(impl_->context != nullptr && Aes256Ctr() != nullptr);
  TALARIA_CHECK(
      EVP_EncryptInit_ex2(impl_->context.get(), Aes256Ctr(), key.data(), block, nullptr) == 1);
}

AesCtrStream::~AesCtrStream() = default;
AesCtrStream::AesCtrStream(AesCtrStream&&) noexcept = default;
AesCtrStream& AesCtrStream::operator=(AesCtrStream&&) noexcept = default;

void AesCtrStream::Next(MutableBytes out) {
  while (!out.empty()) {
    const size_t size = std::min(out.size(), kChunkBytes);
    std::memset(out.data(), 0, size);
    int written = 0;
    TALARIA_CHECK(EVP_EncryptUpdate(impl_->context.get(), out.data(), &written, out.data(),
                                    static_cast<int>(size)) == 1 &&
                  static_cast<size_t>(written) == size);
    out = out.subspan(size);
  }
}

void AesCtrStream::Restart(uint64_t iv_high) {
  uint8_t block[16];
  FirstBlock(iv_high, block);
  TALARIA_CHECK(EVP_EncryptInit_ex2(impl_->context.get(), nullptr, nullptr, block, nullptr) == 1);
}

}  // namespace talaria::ring
