#include "talaria/base/secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <sys/mman.h>

#include <atomic>
#include <fstream>
#include <string>

#include "talaria/base/log.h"

namespace talaria {

void Wipe(void* data, size_t size) {
  if (size != 0) OPENSSL_cleanse(data, size);
}

bool ConstantTimeEqual(const void* a, const void* b, size_t size) {
  return CRYPTO_memcmp(a, b, size) == 0;
}

Result<SecretMemory> SecretMemory::Create(size_t size, LockPolicy policy) {
  constexpr size_t kHugePage = size_t{2} << 20;
  constexpr size_t kPage = 4096;
  const size_t mapped = (size + kPage - 1) / kPage * kPage;
  SecretMemory memory;
  if (mapped == 0) return memory;
  void* data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return Status(Code::kResourceExhausted,
                  "no memory for " + std::to_string(mapped >> 20) + " MiB of masks or keys");
  }
  memory.data_ = data;
  memory.size_ = size;
  memory.mapped_ = mapped;
  (void)madvise(data, mapped, MADV_DONTDUMP);
  if (mapped >= kHugePage) (void)madvise(data, mapped, MADV_HUGEPAGE);
  if (madvise(data, mapped, MADV_WIPEONFORK) != 0)
    return Status(Code::kUnsupported, "this kernel has no MADV_WIPEONFORK");
  if (mlock(data, mapped) != 0) {
    if (policy == LockPolicy::kRequire) {
      return Status(Code::kResourceExhausted, "cannot lock " + std::to_string(mapped >> 10) +
                                                  " KiB of memory: " + std::strerror(errno) +
                                                  " (raise RLIMIT_MEMLOCK)");
    }
    static std::atomic<bool> warned{false};
    if (!warned.exchange(true)) {
      LogWarning(
          "mask memory cannot be locked (RLIMIT_MEMLOCK); tolerated only because of the simulated "
          "TEE");
    }
  }
  return memory;
}

void SecretMemory::Clear() { Wipe(data_, mapped_); }

void SecretMemory::Release() {
  if (data_ == nullptr) return;
  Wipe(data_, mapped_);
  munmap(data_, mapped_);
  data_ = nullptr;
  size_ = mapped_ = 0;
}

Status CheckNoSwap(LockPolicy policy) {
  std::ifstream swaps("/proc/swaps");
  std::string line;
  const bool readable = static_cast<bool>(std::getline(swaps, line));  // the heading
  if (!readable && policy == LockPolicy::kRequire)
    return Status(Code::kUnsupported, "/proc/swaps cannot be read, so swap may be on");
  if (!std::getline(swaps, line)) return OkStatus();
  if (policy == LockPolicy::kRequire)
    return Status(Code::kResourceExhausted, "swap is on; a CVM must not swap (swapoff -a)");
  LogWarning("swap is on; tolerated only because of the simulated TEE");
  return OkStatus();
}

}  // namespace talaria
