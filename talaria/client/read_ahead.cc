#include "talaria/client/read_ahead.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace talaria::client {
namespace {

constexpr size_t kPieceBytes = 16 << 10;
constexpr size_t kMaxUnreadBytes = 64 << 10;  // then the peer has to wait

}  // namespace

ReadAhead::ReadAhead(std::unique_ptr<wire::Transport> transport)
    : transport_(std::move(transport)), receiver_([this] { Receive(); }) {}

ReadAhead::~ReadAhead() {
  Shutdown();
  receiver_.join();
}

void ReadAhead::Receive() {
  std::array<uint8_t, kPieceBytes> piece;
  for (;;) {
    const Result<size_t> n = transport_->ReceiveSome(piece, 1, 0);
    std::unique_lock lock(mutex_);
    if (!n.ok()) {
      end_ = n.status();
      changed_.notify_all();
      if (auto callback = std::exchange(on_end_, {})) callback();
      return;
    }
    if (begin_ == buffer_.size()) {
      buffer_.clear();
      begin_ = 0;
    }
    buffer_.insert(buffer_.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*n));
    changed_.notify_all();
    changed_.wait(lock, [this] { return stop_ || buffer_.size() - begin_ < kMaxUnreadBytes; });
  }
}

Status ReadAhead::Send(std::initializer_list<Bytes> parts, int timeout_ms) {
  return transport_->Send(parts, timeout_ms);
}

Result<size_t> ReadAhead::ReadSome(MutableBytes out, TimePoint deadline) {
  std::unique_lock lock(mutex_);
  const bool in_time = changed_.wait_until(
      lock, deadline, [this] { return stop_ || begin_ < buffer_.size() || !end_.ok(); });
  if (stop_) return Status(Code::kCancelled, "the connection was shut down");
  if (!in_time) return Status(Code::kUnavailable, "nothing came in time");
  const size_t n = std::min(out.size(), buffer_.size() - begin_);
  if (n == 0) return end_;
  std::memcpy(out.data(), buffer_.data() + begin_, n);
  begin_ += n;
  // What was read leaves the buffer before it has grown to twice its bound.
  if (begin_ >= kMaxUnreadBytes) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(begin_));
    begin_ = 0;
  }
  changed_.notify_all();
  return n;
}

bool ReadAhead::ended() const {
  const std::lock_guard lock(mutex_);
  return stop_ || !end_.ok();
}

bool ReadAhead::quiet() const {
  const std::lock_guard lock(mutex_);
  return !stop_ && end_.ok() && begin_ == buffer_.size();
}

void ReadAhead::Shutdown() {
  transport_->Shutdown();
  const std::lock_guard lock(mutex_);
  stop_ = true;
  changed_.notify_all();
}

void ReadAhead::OnEnd(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  on_end_ = std::move(callback);
  if (on_end_ && !end_.ok()) std::exchange(on_end_, {})();
}

}  // namespace talaria::client
