#include "talaria/gemm/product_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <mutex>

namespace talaria::gemm {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRegion = size_t{32} << 20;  // untouched pages at its end cost nothing
constexpr size_t kAlign = 4096;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// `bytes` (a multiple of 2 MB) of zeros at a huge page's border, or null.
std::shared_ptr<int8_t> MapRegion(size_t bytes) {
  const size_t mapped = bytes + kHugePage;
  void* start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(start);
  const uintptr_t aligned = RoundUp(begin, kHugePage);
  int8_t* data = reinterpret_cast<int8_t*>(aligned);
  madvise(data, bytes, MADV_HUGEPAGE);  // a wish: without it products are slower, not wrong
  return {data, [start, mapped](int8_t*) { munmap(start, mapped); }};
}

}  // namespace

std::shared_ptr<int8_t> AllocateWeights(size_t bytes) {
  // Pieces are never handed out twice, so that what mmap zeroed is still zero.
  static std::mutex mutex;
  static std::weak_ptr<int8_t> region;
  static size_t used = 0, size = 0;
  if (bytes > SIZE_MAX / 2) return nullptr;
  bytes = RoundUp(std::max<size_t>(bytes, 1), kAlign);
  if (bytes > kRegion / 2) return MapRegion(RoundUp(bytes, kHugePage));  // large ones stand alone
  std::lock_guard lock(mutex);
  std::shared_ptr<int8_t> current = region.lock();
  if (current == nullptr || bytes > size - used) {
    current = MapRegion(kRegion);
    if (current == nullptr) return nullptr;
    region = current;
    used = 0;
    size = kRegion;
  }
  int8_t* piece = current.get() + used;
  used += bytes;
  return {std::move(current), piece};
}

}  // namespace talaria::gemm
