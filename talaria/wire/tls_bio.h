// The ciphertext of one connection, between OpenSSL, which reads and writes it through a BIO, and
// the threads that receive and send it. Never waits. Only tls*.cc include this.
#ifndef TALARIA_WIRE_TLS_BIO_H_
#define TALARIA_WIRE_TLS_BIO_H_

#include <openssl/bio.h>
#include <openssl/ssl3.h>

#include <initializer_list>
#include <memory>

#include "talaria/base/bytes.h"

namespace talaria::wire {

inline constexpr size_t kRecordBytes = SSL3_RT_MAX_PLAIN_LENGTH;  // 16,384: RFC 8446, section 5.1
// Header, content type, tag. Padding stays within the 16,384 bytes and their type.
inline constexpr size_t kSealedRecordBytes = kRecordBytes + 5 + 1 + 16;
// Per read and write of the system: a Unix socket's buffer holds about so many.
inline constexpr size_t kBatchRecords = 12;
inline constexpr size_t kBatchBytes = kBatchRecords * kSealedRecordBytes;
// For what OpenSSL says on its own: the handshake's flights (3 KiB with ML-KEM), alerts, key
// updates.
inline constexpr size_t kOutSlackBytes = size_t{16} << 10;

// Not thread-safe, except that one thread may fill Space() while in_empty() and one may read Out()
// while others use all the rest.
class CiphertextBuffers {
 public:
  // Neither buffer is touched before it is used.
  CiphertextBuffers()
      : in_(std::make_unique_for_overwrite<uint8_t[]>(kBatchBytes)),
        out_(std::make_unique_for_overwrite<uint8_t[]>(kBatchBytes + kOutSlackBytes)) {}
  CiphertextBuffers(const CiphertextBuffers&) = delete;
  CiphertextBuffers& operator=(const CiphertextBuffers&) = delete;

  // A BIO on this, which must outlive it; null without memory.
  BIO* NewBio();

  // Received, for OpenSSL to open.
  bool in_empty() const { return in_begin_ == in_end_; }
  MutableBytes Space() { return {in_.get(), kBatchBytes}; }
  void Filled(size_t size) {  // of Space(), after in_empty()
    in_begin_ = 0;
    in_end_ = size;
  }

  // Sealed by OpenSSL, to be sent. Appended to, never moved, until DropOut().
  Bytes Out() const { return {out_.get(), out_size_}; }
  bool HasRoomForRecord() const { return kBatchBytes >= out_size_ + kSealedRecordBytes; }
  void DropOut(size_t size);  // the first `size` bytes have been sent

 private:
  static int Read(BIO* bio, char* data, size_t size, size_t* done);
  static int Write(BIO* bio, const char* data, size_t size, size_t* done);

  std::unique_ptr<uint8_t[]> in_, out_;
  size_t in_begin_ = 0, in_end_ = 0, out_size_ = 0;
};

// Cuts the concatenation of `parts` into records of 16 KiB, copying only where a record spans
// parts. The parts outlive it.
class RecordCutter {
 public:
  // `scratch` holds kRecordBytes.
  RecordCutter(std::initializer_list<Bytes> parts, uint8_t* scratch)
      : next_(parts.begin()), scratch_(scratch) {
    for (const Bytes& part : parts) left_ += part.size();
  }
  bool done() const { return left_ == 0; }
  Bytes Next();  // 1..kRecordBytes bytes, valid until the next Next(); not when done()

 private:
  Bytes Take(size_t size) {
    const Bytes piece = part_.first(size);
    part_ = part_.subspan(size);
    return piece;
  }
  Bytes part_;         // what is left of the current part
  const Bytes* next_;  // the part after it
  size_t left_ = 0;    // of all parts
  uint8_t* scratch_;
};

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_TLS_BIO_H_
