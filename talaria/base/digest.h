// SHA-256 (OpenSSL).
#ifndef TALARIA_BASE_DIGEST_H_
#define TALARIA_BASE_DIGEST_H_

#include <array>
#include <memory>
#include <string>

#include "talaria/base/bytes.h"

namespace talaria {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void Update(Bytes data);
  Digest Finish();  // once

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

Digest Sha256Of(Bytes data);
inline std::string ToHex(const Digest& digest) { return ToHex(Bytes(digest)); }

}  // namespace talaria

#endif  // TALARIA_BASE_DIGEST_H_
