// AES-256-CTR key streams (OpenSSL): the only source of pseudo-randomness in the ring.
#ifndef TALARIA_RING_AES_CTR_H_
#define TALARIA_RING_AES_CTR_H_

#include <cstdint>
#include <memory>
#include <span>

#include "talaria/base/bytes.h"

namespace talaria::ring {

// Counter block = iv_high u64 || block u64, both big-endian; the block counts from 0. Move-only;
// wipes its key schedule. One thread at a time.
class AesCtrStream {
 public:
  AesCtrStream(std::span<const uint8_t, 32> key, uint64_t iv_high);
  ~AesCtrStream();
  AesCtrStream(AesCtrStream&&) noexcept;
  AesCtrStream& operator=(AesCtrStream&&) noexcept;
  // The next out.size() bytes of the stream.
  void Next(MutableBytes out);
  // Goes to the first byte of another stream under the same key; cheaper than a new object.
  void Restart(uint64_t iv_high);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace talaria::ring

#endif  // TALARIA_RING_AES_CTR_H_
