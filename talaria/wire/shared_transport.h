// One transport under two owners: what is built on top of it, TLS for example, and whoever may have
// to shut it down meanwhile.
#ifndef TALARIA_WIRE_SHARED_TRANSPORT_H_
#define TALARIA_WIRE_SHARED_TRANSPORT_H_

#include <memory>
#include <utility>

#include "talaria/wire/transport.h"

namespace talaria::wire {

class SharedTransport final : public Transport {
 public:
  explicit SharedTransport(std::shared_ptr<Transport> inner) : inner_(std::move(inner)) {}
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms) override {
    return inner_->Send(parts, timeout_ms);
  }
  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) override {
    return inner_->ReceiveSome(out, min_bytes, timeout_ms);
  }
  void Shutdown() override { inner_->Shutdown(); }

 private:
  const std::shared_ptr<Transport> inner_;
};

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_SHARED_TRANSPORT_H_
