#include "talaria/cvm/lab/wire_tap.h"

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

#include "talaria/wire/messages.h"
#include "talaria/wire/transport.h"

namespace talaria::cvm::lab {
namespace {

constexpr size_t kPieceBytes = 256 << 10;
constexpr int kConnectTimeoutMs = 2000;

// Cuts a stream of bytes into frames, as far as they are needed to see a call.
class FrameReader {
 public:
  template <class OnFrame>
  void Add(Bytes bytes, const OnFrame& on_frame) {
    pending_.insert(pending_.end(), bytes.begin(), bytes.end());
    size_t begin = 0;
    while (pending_.size() - begin >= wire::kFrameHeaderBytes) {
      const size_t length = LoadLe<uint32_t>(pending_.data() + begin);  // of type and body
      if (length == 0 || length > wire::kMaxFrameBytes)
        break;  // not our protocol: nothing more is looked at
      if (pending_.size() - begin < 4 + length) break;
      on_frame(static_cast<wire::Type>(pending_[begin + 4]),
               Bytes(pending_).subspan(begin + wire::kFrameHeaderBytes, length - 1));
      begin += 4 + length;
    }
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(begin));
  }

 private:
  std::vector<uint8_t> pending_;
};

class WireTapImpl final : public WireTap {
 public:
  WireTapImpl(std::unique_ptr<wire::Listener> listener, wire::Endpoint cloud, size_t keep_calls,
              size_t keep_values)
      : listener_(std::move(listener)),
        cloud_(std::move(cloud)),
        keep_calls_(keep_calls),
        keep_values_(keep_values) {
    acceptor_ = std::thread([this] { AcceptAll(); });
  }

  ~WireTapImpl() override {
    listener_->Shutdown();
    acceptor_.join();
    for (const std::shared_ptr<Pair>& pair : pairs_) pair->Shutdown();
    for (std::thread& t : threads_) t.join();
  }

  std::string address() const override { return listener_->address(); }
  Tapped Seen() const override {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  struct Pair {
    std::unique_ptr<wire::Transport> cvm, cloud;
    void Shutdown() {
      cvm->Shutdown();
      cloud->Shutdown();
    }
  };

  void AcceptAll() {
    for (;;) {
      auto cvm = listener_->Accept();
      if (!cvm.ok()) return;
      auto cloud = wire::Connect(cloud_, kConnectTimeoutMs);
      if (!cloud.ok()) continue;  // the CVM sees its connection closed, as it would without us
      auto pair = std::make_shared<Pair>();
      pair->cvm = std::move(*cvm);
      pair->cloud = std::move(*cloud);
      pairs_.push_back(pair);
      threads_.emplace_back([this, pair] {
        FrameReader frames;
        Pump(*pair->cvm, *pair->cloud, [&](Bytes bytes) {
          frames.Add(bytes, [this](wire::Type type, Bytes body) { Look(type, body); });
        });
        pair->Shutdown();
      });
      threads_.emplace_back([pair] {
        Pump(*pair->cloud, *pair->cvm, [](Bytes) {});
        pair->Shutdown();
      });
    }
  }

  template <class Look>
  static void Pump(wire::Transport& from, wire::Transport& to, const Look& look) {
    std::vector<uint8_t> piece(kPieceBytes);
    for (;;) {
      const Result<size_t> size = from.ReceiveSome(piece, 1, 0);
      if (!size.ok()) return;
      const Bytes bytes(piece.data(), *size);
      look(bytes);
      if (!to.Send({bytes}, 0).ok()) return;
    }
  }

  void Look(wire::Type type, Bytes body) {
    if (type != wire::Type::kMultiply) return;
    Bytes planes;
    const Result<wire::MultiplyHeader> header = wire::DecodeMultiply(body, &planes);
    if (!header.ok() || header->rows == 0) return;
    const std::lock_guard lock(mutex_);
    ++seen_.calls;
    seen_.rows += header->rows;
    if (seen_.first.size() == keep_calls_) return;
    constexpr size_t kDigits = 6;  // one plane each, low digit first
    const size_t width = planes.size() / header->rows / kDigits;
    TappedCall call{.group = header->group,
                    .rows = header->rows,
                    .width = static_cast<uint32_t>(width),
                    .first_row = {}};
    for (size_t j = 0; j < std::min(keep_values_, width); ++j) {
      uint64_t residue = 0;
      for (size_t p = 0; p < kDigits; ++p) residue |= uint64_t{planes[p * width + j]} << (8 * p);
      call.first_row.push_back(residue);
    }
    seen_.first.push_back(std::move(call));
  }

  const std::unique_ptr<wire::Listener> listener_;
  const wire::Endpoint cloud_;
  const size_t keep_calls_, keep_values_;
  mutable std::mutex mutex_;  // guards seen_
  Tapped seen_;
  std::vector<std::shared_ptr<Pair>> pairs_;  // of the acceptor's thread, then of the destructor's
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace

Result<std::unique_ptr<WireTap>> WireTap::Create(const std::string& listen,
                                                 const std::string& cloud, size_t keep_calls,
                                                 size_t keep_values) {
  TALARIA_ASSIGN_OR_RETURN(const wire::Endpoint here, wire::Endpoint::Parse(listen));
  TALARIA_ASSIGN_OR_RETURN(wire::Endpoint there, wire::Endpoint::Parse(cloud));
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<wire::Listener> listener, wire::Listener::Create(here));
  return std::unique_ptr<WireTap>(std::make_unique<WireTapImpl>(
      std::move(listener), std::move(there), keep_calls, keep_values));
}

}  // namespace talaria::cvm::lab
