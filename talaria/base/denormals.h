// Denormal floats are flushed wherever activations are touched: they are slow, so their time would
// tell values.
#ifndef TALARIA_BASE_DENORMALS_H_
#define TALARIA_BASE_DENORMALS_H_

#include <cstdint>
#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace talaria {

// Sets flush-to-zero and denormals-are-zero for the calling thread, and puts back what was there.
class ScopedFlushDenormals {
 public:
#if defined(__SSE__)
  ScopedFlushDenormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero);
  }
  ~ScopedFlushDenormals() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  ScopedFlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | kFlushToZero));
  }
  ~ScopedFlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
  ScopedFlushDenormals() = default;
#endif
  ScopedFlushDenormals(const ScopedFlushDenormals&) = delete;
  ScopedFlushDenormals& operator=(const ScopedFlushDenormals&) = delete;

 private:
#if defined(__SSE__)
  static constexpr unsigned kFlushToZero = 0x8000;  // MXCSR bits 15 and 6
  static constexpr unsigned kDenormalsAreZero = 0x0040;
  unsigned saved_;
#elif defined(__aarch64__)
  static constexpr uint64_t kFlushToZero = uint64_t{1} << 24;  // FPCR.FZ, of inputs, too
  uint64_t saved_;
#endif
};

}  // namespace talaria

#endif  // TALARIA_BASE_DENORMALS_H_
