#include "talaria/wire/tls_bio.h"

#include <algorithm>
#include <cstring>

#include "talaria/base/result.h"

namespace talaria::wire {

int CiphertextBuffers::Read(BIO* bio, char* data, size_t size, size_t* done) {
  auto* self = static_cast<CiphertextBuffers*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  *done = std::min(size, self->in_end_ - self->in_begin_);
  if (*done == 0) {
    BIO_set_retry_read(bio);
    return 0;
  }
  std::memcpy(data, self->in_.get() + self->in_begin_, *done);
  self->in_begin_ += *done;
  return 1;
}

int CiphertextBuffers::Write(BIO* bio, const char* data, size_t size, size_t* done) {
  auto* self = static_cast<CiphertextBuffers*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  // Full only if a peer makes OpenSSL talk without end; no retry then, the connection fails.
  if (size > kBatchBytes + kOutSlackBytes - self->out_size_) return 0;
  std::memcpy(self->out_.get() + self->out_size_, data, size);
  self->out_size_ += size;
  *done = size;
  return 1;
}

BIO* CiphertextBuffers::NewBio() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "talaria");
    TALARIA_CHECK(m != nullptr && BIO_meth_set_read_ex(m, Read) == 1 &&
                  BIO_meth_set_write_ex(m, Write) == 1 &&
                  BIO_meth_set_ctrl(m, [](BIO*, int command, long, void*) -> long {
                    return command == BIO_CTRL_FLUSH ? 1 : 0;
                  }) == 1);
    return m;
  }();
  BIO* const bio = BIO_new(method);
  if (bio != nullptr) {
    BIO_set_data(bio, this);
    BIO_set_init(bio, 1);
  }
  return bio;
}

void CiphertextBuffers::DropOut(size_t size) {
  // Usually all of it; more is there only when the receiving thread made OpenSSL answer meanwhile.
  if (size != 0 && size < out_size_) {
    std::memmove(out_.get(), out_.get() + size, out_size_ - size);
  }
  out_size_ -= size;
}

Bytes RecordCutter::Next() {
  const size_t size = std::min(left_, kRecordBytes);
  left_ -= size;
  while (part_.empty()) part_ = *next_++;
  if (part_.size() >= size) return Take(size);
  size_t copied = 0;
  while (copied < size) {
    while (part_.empty()) part_ = *next_++;
    const Bytes piece = Take(std::min(part_.size(), size - copied));
    std::memcpy(scratch_ + copied, piece.data(), piece.size());
    copied += piece.size();
  }
  return {scratch_, size};
}

}  // namespace talaria::wire
