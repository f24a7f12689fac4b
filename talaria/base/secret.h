// Secrets as types: move-only, wiped when they die, neither printable nor comparable by accident.
// `Expose()` is the one, greppable way to look inside. There is no serialiser for a secret.
#ifndef TALARIA_BASE_SECRET_H_
#define TALARIA_BASE_SECRET_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "talaria/base/result.h"

namespace talaria {

// Overwrites memory in a way that the compiler may not drop.
void Wipe(void* data, size_t size);

// How SecretMemory treats a platform that refuses to lock pages or that has swap.
enum class LockPolicy {
  kRequire,           // refuse: production
  kWarnIfImpossible,  // one loud warning per process: only together with the simulated TEE
};

// A fixed-size key.
template <size_t N>
class SecretKey {
 public:
  SecretKey() { std::memset(bytes_, 0, N); }
  ~SecretKey() { Wipe(bytes_, N); }
  SecretKey(SecretKey&& other) noexcept {
    std::memcpy(bytes_, other.bytes_, N);
    Wipe(other.bytes_, N);
  }
  SecretKey& operator=(SecretKey&& other) noexcept {
    if (this != &other) {
      std::memcpy(bytes_, other.bytes_, N);
      Wipe(other.bytes_, N);
    }
    return *this;
  }
  SecretKey(const SecretKey&) = delete;
  SecretKey& operator=(const SecretKey&) = delete;
  std::span<uint8_t, N> Expose() { return std::span<uint8_t, N>(bytes_); }
  std::span<const uint8_t, N> Expose() const { return std::span<const uint8_t, N>(bytes_); }

 private:
  uint8_t bytes_[N];
};

// Private anonymous memory: locked, MADV_DONTDUMP, MADV_WIPEONFORK, huge pages where they help;
// zeroed at birth, wiped at death. Page-aligned. Not thread-safe by itself.
class SecretMemory {
 public:
  SecretMemory() = default;
  // kResourceExhausted when memory is short or, with kRequire, when it cannot be locked.
  static Result<SecretMemory> Create(size_t size, LockPolicy policy);
  ~SecretMemory() { Release(); }
  SecretMemory(SecretMemory&& other) noexcept { Swap(other); }
  SecretMemory& operator=(SecretMemory&& other) noexcept {
    if (this != &other) {
      Release();
      Swap(other);
    }
    return *this;
  }
  SecretMemory(const SecretMemory&) = delete;
  SecretMemory& operator=(const SecretMemory&) = delete;

  size_t size() const { return size_; }
  void Clear();  // wipes, keeps the memory
  template <class T = uint8_t>
  std::span<T> Expose() const {
    static_assert(std::is_trivially_copyable_v<T>);
    return {static_cast<T*>(data_), size_ / sizeof(T)};
  }

 private:
  void Swap(SecretMemory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
  }
  void Release();
  void* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

// Equal or not, in time that depends on the size only.
bool ConstantTimeEqual(const void* a, const void* b, size_t size);

// kResourceExhausted when the machine swaps to disk (secrets would reach it) and the policy is
// kRequire.
Status CheckNoSwap(LockPolicy policy);

}  // namespace talaria

#endif  // TALARIA_BASE_SECRET_H_
