#include "talaria/engine/shared_region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <string>

namespace talaria::engine {
namespace {

#ifndef MFD_NOEXEC_SEAL
constexpr unsigned kNoExecSeal = 0x0008U;  // Linux 6.3
#else
constexpr unsigned kNoExecSeal = MFD_NOEXEC_SEAL;
#endif
constexpr unsigned kLockOnFault = 1;  // MLOCK_ONFAULT

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

SharedRegion::Mapping::~Mapping() {
  if (base != nullptr) munmap(base, size);
}

Result<SharedRegion> SharedRegion::MapWhole(int fd, size_t size) {
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return Status(Code::kResourceExhausted,
                  std::string("cannot map the engine channel: ") + std::strerror(errno));
  }
  (void)madvise(base, size, MADV_DONTDUMP);
  SharedRegion region;
  region.mapping_ = std::make_shared<Mapping>();
  region.mapping_->base = base;
  region.mapping_->size = size;
  return region;
}

Result<SharedRegion> SharedRegion::Create(size_t data_bytes, Fd* memory) {
  int fd = memfd_create("talaria-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING | kNoExecSeal);
  if (fd < 0) fd = memfd_create("talaria-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  Fd owned(fd);
  const size_t size = kHeaderBytes + data_bytes;
  if (!owned.valid() || ftruncate(fd, static_cast<off_t>(size)) != 0) {
    return Status(Code::kResourceExhausted,
                  std::string("cannot make the engine channel: ") + std::strerror(errno));
  }
  // Without these seals the child could shrink the file and kill the parent with SIGBUS.
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return Status(Code::kUnsupported,
                  std::string("cannot seal the engine channel: ") + std::strerror(errno));
  }
  TALARIA_ASSIGN_OR_RETURN(SharedRegion region, MapWhole(fd, size));
  // Locked on first touch: a region for 512 rows of a wide head is large, and decoding touches
  // little of it. A platform that refuses is reported when the masks are allocated, which have the
  // same need and a policy (base/secret.h).
  (void)syscall(SYS_mlock2, region.mapping_->base, size, kLockOnFault);
  ChannelHeader& header = region.header();
  header.magic = kChannelMagic;
  header.version = kChannelVersion;
  header.data_bytes = data_bytes;
  *memory = std::move(owned);
  return region;
}

Result<SharedRegion> SharedRegion::Map(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return Status(Code::kUnavailable, "no engine channel was inherited");
  if (!S_ISREG(status.st_mode) || status.st_size < static_cast<off_t>(kHeaderBytes)) {
    return Status(Code::kUnavailable, "the inherited descriptor is not an engine channel");
  }
  TALARIA_ASSIGN_OR_RETURN(SharedRegion region, MapWhole(fd, static_cast<size_t>(status.st_size)));
  const ChannelHeader& header = region.header();
  if (header.magic != kChannelMagic)
    return Status(Code::kUnavailable, "the inherited descriptor is not an engine channel");
  if (header.version != kChannelVersion)
    return Status(Code::kUnsupported, "the engine channel has another version than this plug-in");
  if (header.data_bytes != region.data_bytes() || header.model_bytes > region.data_bytes()) {
    return Status(Code::kCorrupt, "the engine channel's header does not fit its size");
  }
  return region;
}

void Wake(uint32_t& word, uint32_t& sleeps) {
  // Both this load and the sleeper's store are sequentially consistent with the change of `word`:
  // either the sleeper sees the change before it sleeps, or we see that it sleeps.
  if (Load(sleeps) == 0) return;
  syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

bool Waiter::Wait(uint32_t& word, uint32_t seen, uint32_t& sleeps,
                  std::chrono::milliseconds sleep) {
  using Clock = std::chrono::steady_clock;
  constexpr uint32_t kTryAgainEvery = 64;
  if (Load(word) != seen) return true;
  if (spin_.count() == 0 && ++waits_ % kTryAgainEvery == 0) spin_ = most_ / 4;
  if (spin_.count() > 0) {
    const Clock::time_point end = Clock::now() + spin_;
    do {
      for (int i = 0; i < 32; ++i) {
        if (Load(word) != seen) {
          spin_ = most_;
          return true;
        }
        Pause();
      }
      sched_yield();  // the other side, or the cloud, may want this very core
    } while (Clock::now() < end);
    spin_ /= 2;
  }
  return Sleep(word, seen, sleeps, sleep);
}

bool Waiter::Sleep(uint32_t& word, uint32_t seen, uint32_t& sleeps,
                   std::chrono::milliseconds sleep) {
  Store(sleeps, 1);
  if (Load(word) == seen) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(sleep);
    const timespec timeout{static_cast<time_t>(seconds.count()),
                           static_cast<long>(std::chrono::nanoseconds(sleep - seconds).count())};
    syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
  }
  Store(sleeps, 0);
  return Load(word) != seen;
}

}  // namespace talaria::engine
