#include "talaria/base/digest.h"

#include "talaria/base/openssl.h"

namespace talaria {

struct Sha256::Impl {
  Owned<EVP_MD_CTX> ctx{EVP_MD_CTX_new()};
  Impl() {
    TALARIA_CHECK(ctx != nullptr && EVP_DigestInit_ex(ctx.get(), EVP_sha256(), nullptr) == 1);
  }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(Bytes data) {
  TALARIA_CHECK(EVP_DigestUpdate(impl_->ctx.get(), data.data(), data.size()) == 1);
}

Digest Sha256::Finish() {
  Digest out;
  TALARIA_CHECK(EVP_DigestFinal_ex(impl_->ctx.get(), out.data(), nullptr) == 1);
  return out;
}

Digest Sha256Of(Bytes data) {
  Sha256 hash;
  hash.Update(data);
  return hash.Finish();
}

}  // namespace talaria
