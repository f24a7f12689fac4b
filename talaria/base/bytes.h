// Bounded little-endian reading and writing. A ByteReader never reads past its span; after the
// first failure every read returns zero and ok() stays false, so a parser checks once, before it
// uses anything.
#ifndef TALARIA_BASE_BYTES_H_
#define TALARIA_BASE_BYTES_H_

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace talaria {

using Bytes = std::span<const uint8_t>;
using MutableBytes = std::span<uint8_t>;
static_assert(std::endian::native == std::endian::little,
              "Talaria's kernels and formats assume little-endian");

inline Bytes AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

template <class T>
T LoadLe(const uint8_t* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

class ByteReader {
 public:
  explicit ByteReader(Bytes data) : data_(data) {}
  uint8_t U8() { return Take<uint8_t>(); }
  uint16_t U16() { return Take<uint16_t>(); }
  uint32_t U32() { return Take<uint32_t>(); }
  uint64_t U64() { return Take<uint64_t>(); }
  // A view into the input; empty on failure.
  Bytes Raw(size_t size) {
    if (!Has(size)) return {};
    Bytes out = data_.subspan(position_, size);
    position_ += size;
    return out;
  }
  template <size_t N>
  std::array<uint8_t, N> Array() {
    std::array<uint8_t, N> out{};
    Bytes raw = Raw(N);
    if (raw.size() == N) std::memcpy(out.data(), raw.data(), N);
    return out;
  }
  size_t remaining() const { return ok_ ? data_.size() - position_ : 0; }
  bool ok() const { return ok_; }
  // Everything was read and nothing failed: what a canonical parser demands at its end.
  bool AtEnd() const { return ok_ && position_ == data_.size(); }

 private:
  bool Has(size_t size) {
    if (!ok_ || size > data_.size() - position_) ok_ = false;
    return ok_;
  }
  template <class T>
  T Take() {
    if (!Has(sizeof(T))) return 0;
    T value = LoadLe<T>(data_.data() + position_);
    position_ += sizeof(T);
    return value;
  }
  Bytes data_;
  size_t position_ = 0;
  bool ok_ = true;
};

class ByteWriter {
 public:
  explicit ByteWriter(std::vector<uint8_t>& out) : out_(out) {}
  void U8(uint8_t v) { Put(v); }
  void U16(uint16_t v) { Put(v); }
  void U32(uint32_t v) { Put(v); }
  void U64(uint64_t v) { Put(v); }
  void Raw(Bytes data) { out_.insert(out_.end(), data.begin(), data.end()); }

 private:
  template <class T>
  void Put(T value) {
    // Not insert(): GCC 12 warns, wrongly, of an overflow there.
    const size_t at = out_.size();
    out_.resize(at + sizeof(T));
    std::memcpy(out_.data() + at, &value, sizeof(T));
  }
  std::vector<uint8_t>& out_;
};

std::string ToHex(Bytes data);
// Lower-case hex only, exactly `out.size()` bytes; false otherwise.
bool FromHex(std::string_view text, MutableBytes out);

}  // namespace talaria

#endif  // TALARIA_BASE_BYTES_H_
