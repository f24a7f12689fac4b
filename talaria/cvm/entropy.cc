#include "talaria/cvm/entropy.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <sys/random.h>

#include <atomic>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "talaria/base/bytes.h"
#include "talaria/base/log.h"
#include "talaria/base/openssl.h"
#include "talaria/base/secret.h"

namespace talaria::cvm {
namespace {

constexpr size_t kSystemBytes = 32;
constexpr size_t kMaxDomainBytes = 64;

#if defined(__x86_64__)
bool HasRdseed() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_RDSEED) != 0;
  }();
  return has;
}

__attribute__((target("rdseed"))) bool Rdseed(uint64_t& out) {
  unsigned long long word = 0;
  const bool ok = _rdseed64_step(&word) != 0;
  out = word;
  if (!ok) _mm_pause();
  return ok;
}
#else
bool HasRdseed() { return false; }
bool Rdseed(uint64_t&) { return false; }
#endif

Status SystemEntropy(MutableBytes out) {
  while (!out.empty()) {
    const ssize_t n = getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Status(Code::kIo, "getrandom failed");
    out = out.subspan(static_cast<size_t>(n));
  }
  return OkStatus();
}

// HKDF-SHA-256 (RFC 5869) without salt; `domain` is the info field.
Status Hkdf(Bytes input, std::string_view domain, std::span<uint8_t, 32> out) {
  // Looked up once per process: a search through OpenSSL's providers for every batch would cost
  // more than the rest.
  static EVP_KDF* const kdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  const Owned<EVP_KDF_CTX> context(EVP_KDF_CTX_new(kdf));
  if (kdf == nullptr || context == nullptr) return Status(Code::kInternal, "OpenSSL has no HKDF");
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, const_cast<uint8_t*>(input.data()),
                                        input.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, const_cast<char*>(domain.data()),
                                        domain.size()),
      OSSL_PARAM_construct_end()};
  if (EVP_KDF_derive(context.get(), out.data(), out.size(), parameters) != 1)
    return Status(Code::kInternal, "HKDF failed");
  return OkStatus();
}

}  // namespace

namespace internal {

Status ReadSeedWords(const std::function<bool(uint64_t&)>& rdseed,
                     std::array<uint64_t, kRdseedWords>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    int tries = 0;
    while (!rdseed(out[i])) {
      if (++tries == kRdseedTries)
        return Status(Code::kResourceExhausted, "RDSEED delivers nothing");
    }
    // Known broken processors repeat themselves or deliver constants. A good one is refused once in
    // 2^60.
    bool refused = out[i] == 0 || out[i] == ~uint64_t{0};
    for (size_t j = 0; j < i; ++j) refused = refused || out[i] == out[j];
    if (refused)
      return Status(Code::kUnsupported,
                    "RDSEED is broken: it delivered a constant or repeated word");
  }
  return OkStatus();
}

}  // namespace internal

Status FreshKey(RdseedPolicy policy, std::string_view domain, std::span<uint8_t, 32> out) {
  TALARIA_CHECK(domain.size() <= kMaxDomainBytes);
  std::array<uint64_t, internal::kRdseedWords> words{};
  SecretKey<kSystemBytes + sizeof(words)> input;
  Status status = SystemEntropy(input.Expose().first<kSystemBytes>());
  size_t size = kSystemBytes;
  if (status.ok()) {
    if (HasRdseed()) {
      status = internal::ReadSeedWords(Rdseed, words);
      std::memcpy(input.Expose().data() + kSystemBytes, words.data(), sizeof(words));
      Wipe(words.data(), sizeof(words));
      size += sizeof(words);
    } else if (policy == RdseedPolicy::kRequire) {
      status = Status(Code::kUnsupported, "this processor has no RDSEED");
    } else {
      static std::atomic<bool> warned{false};
      if (!warned.exchange(true)) {
        LogWarning("this processor has no RDSEED; tolerated only because of the simulated TEE");
      }
    }
  }
  if (status.ok()) status = Hkdf(Bytes(input.Expose()).first(size), domain, out);
  if (!status.ok()) Wipe(out.data(), out.size());
  return status;
}

}  // namespace talaria::cvm
