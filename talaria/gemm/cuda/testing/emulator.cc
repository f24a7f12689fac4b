#include "talaria/gemm/cuda/testing/emulator.h"

#include <array>
#include <cstring>
#include <utility>

#include "talaria/base/result.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace talaria::gemm::cuda {
namespace {

constexpr uint32_t kLanes = 32;
constexpr size_t kStackBytes = size_t{64} << 10;

enum class State { kReady, kAtBarrier, kAtMma, kDone };

// The byte of operand A [16][32] that is element i of a lane's fragment, and so on: PTX ISA,
// "Matrix Fragments for mma.m16n8k32", integer types.
uint32_t RowOfA(uint32_t lane, uint32_t i) { return lane / 4 + (i / 4 % 2 == 1 ? 8 : 0); }
uint32_t ColumnOfA(uint32_t lane, uint32_t i) { return lane % 4 * 4 + i % 4 + (i >= 8 ? 16 : 0); }
uint32_t RowOfB(uint32_t lane, uint32_t i) { return lane % 4 * 4 + i % 4 + (i >= 4 ? 16 : 0); }
uint32_t ColumnOfB(uint32_t lane) { return lane / 4; }
uint32_t RowOfC(uint32_t lane, uint32_t i) { return lane / 4 + (i >= 2 ? 8 : 0); }
uint32_t ColumnOfC(uint32_t lane, uint32_t i) { return lane % 4 * 2 + i % 2; }

uint8_t Byte(const uint32_t* words, uint32_t i) {
  return static_cast<uint8_t>(words[i / 4] >> (i % 4 * 8));
}

// Tells the address sanitizer that the stack changes.
void StartSwitch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                 [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}
void FinishSwitch([[maybe_unused]] void* save, [[maybe_unused]] const void** bottom,
                  [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(save, bottom, size);
#endif
}

}  // namespace

struct EmulatedBlock::Fiber {
  Fiber(EmulatedBlock& b, uint32_t i) : block(b), thread(i), hardware(b, i) {}
  EmulatedBlock& block;
  uint32_t thread;
  EmulatedThread hardware;
  State state = State::kReady;
  ucontext_t context{};
  std::vector<uint8_t> stack = std::vector<uint8_t>(kStackBytes);
  void* fake_stack = nullptr;
  const void* run_bottom = nullptr;  // the stack of Run
  size_t run_size = 0;
};

struct EmulatedBlock::Warp {
  uint32_t arrived = 0;
  std::array<Words, kLanes> a;
  std::array<std::array<uint32_t, 2>, kLanes> b;
  std::array<int32_t*, kLanes> sums;
};

EmulatedBlock::EmulatedBlock(uint32_t threads, size_t shared_bytes, Landing landing, uint64_t seed)
    : shared_bytes_(shared_bytes),
      memory_(shared_bytes + 15),
      shared_(memory_.data() + (16 - reinterpret_cast<uintptr_t>(memory_.data()) % 16) % 16),
      landing_(landing),
      random_(seed),
      warps_(threads / kLanes) {
  TALARIA_CHECK(threads % kLanes == 0);
  for (uint8_t& byte : memory_) byte = static_cast<uint8_t>(random_());
  for (uint32_t i = 0; i < threads; ++i) fibers_.push_back(std::make_unique<Fiber>(*this, i));
}
EmulatedBlock::~EmulatedBlock() = default;

void EmulatedBlock::Enter(unsigned high, unsigned low) {
  auto& fiber = *reinterpret_cast<Fiber*>(uintptr_t{high} << 32 | low);
  FinishSwitch(nullptr, &fiber.run_bottom, &fiber.run_size);
  (*fiber.block.body_)(fiber.thread, fiber.hardware);
  fiber.state = State::kDone;
  StartSwitch(nullptr, fiber.run_bottom, fiber.run_size);
  swapcontext(&fiber.context, &fiber.block.run_);
}

void EmulatedBlock::Run(const std::function<void(uint32_t, EmulatedThread&)>& body) {
  body_ = &body;
  std::vector<uint32_t> ready;
  for (const auto& fiber : fibers_) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.data();
    fiber->context.uc_stack.ss_size = fiber->stack.size();
    fiber->context.uc_link = nullptr;
    const auto address = reinterpret_cast<uintptr_t>(fiber.get());
    makecontext(&fiber->context, reinterpret_cast<void (*)()>(&EmulatedBlock::Enter), 2,
                static_cast<unsigned>(address >> 32), static_cast<unsigned>(address));
    ready.push_back(fiber->thread);
  }
  while (true) {
    if (ready.empty()) {
      // Everybody waits: a barrier that all have reached, or a warp that never comes together.
      size_t at_barrier = 0, done = 0;
      for (const auto& fiber : fibers_) {
        at_barrier += fiber->state == State::kAtBarrier ? 1 : 0;
        done += fiber->state == State::kDone ? 1 : 0;
      }
      if (done == fibers_.size()) return;
      TALARIA_CHECK(at_barrier == fibers_.size());
      for (const auto& fiber : fibers_) {
        fiber->state = State::kReady;
        ready.push_back(fiber->thread);
      }
    }
    std::swap(ready[random_() % ready.size()], ready.back());
    Fiber& fiber = *fibers_[ready.back()];
    ready.pop_back();
    void* fake_stack = nullptr;
    StartSwitch(&fake_stack, fiber.stack.data(), fiber.stack.size());
    swapcontext(&run_, &fiber.context);
    FinishSwitch(fake_stack, nullptr, nullptr);
    // The last lane that came to an mma has set its warp going again.
    if (fiber.state != State::kReady) continue;
    const uint32_t first = fiber.thread / kLanes * kLanes;
    for (uint32_t lane = first; lane < first + kLanes; ++lane) ready.push_back(lane);
  }
}

void EmulatedBlock::Yield(uint32_t thread) {
  Fiber& fiber = *fibers_[thread];
  StartSwitch(&fiber.fake_stack, fiber.run_bottom, fiber.run_size);
  swapcontext(&fiber.context, &run_);
  FinishSwitch(fiber.fake_stack, &fiber.run_bottom, &fiber.run_size);
}

void EmulatedBlock::CheckShared(const uint8_t* at, size_t bytes) const {
  TALARIA_CHECK(at >= shared_ && at + bytes <= shared_ + shared_bytes_);
  TALARIA_CHECK(reinterpret_cast<uintptr_t>(at) % bytes == 0);
}

void EmulatedThread::Land(const Copy& copy) {
  if (copy.exists) {
    std::memcpy(copy.to, copy.from, 16);
  } else {
    std::memset(copy.to, 0, 16);
  }
}

void EmulatedThread::CopyAsync16(uint8_t* shared, const uint8_t* from, bool exists) {
  block_.CheckShared(shared, 16);
  TALARIA_CHECK(reinterpret_cast<uintptr_t>(from) % 16 == 0);
  const Copy copy{shared, from, exists};
  if (block_.landing_ == Landing::kAtOnce) {
    Land(copy);
  } else {
    groups_.back().push_back(copy);
  }
}

void EmulatedThread::CommitCopies() { groups_.emplace_back(); }

void EmulatedThread::WaitCopies(uint32_t pending) {
  const size_t committed = groups_.size() - 1;
  const size_t landing = committed > pending ? committed - pending : 0;
  for (size_t g = 0; g < landing; ++g) {
    for (const Copy& copy : groups_[g]) Land(copy);
  }
  groups_.erase(groups_.begin(), groups_.begin() + static_cast<ptrdiff_t>(landing));
}

void EmulatedThread::BlockBarrier() {
  block_.fibers_[thread_]->state = State::kAtBarrier;
  block_.Yield(thread_);
}

Words EmulatedThread::LoadShared16(const uint8_t* shared) const {
  block_.CheckShared(shared, 16);
  Words words;
  std::memcpy(&words, shared, sizeof(words));
  return words;
}

void EmulatedThread::Mma(int32_t (&sums)[4], const Words& a, uint32_t b0, uint32_t b1) {
  EmulatedBlock::Warp& warp = block_.warps_[thread_ / kLanes];
  const uint32_t lane = thread_ % kLanes;
  warp.a[lane] = a;
  warp.b[lane] = {b0, b1};
  warp.sums[lane] = sums;
  if (++warp.arrived < kLanes) {
    block_.fibers_[thread_]->state = State::kAtMma;
    block_.Yield(thread_);
    return;
  }
  int8_t matrix_a[16][32];
  uint8_t matrix_b[32][8];
  for (uint32_t l = 0; l < kLanes; ++l) {
    for (uint32_t i = 0; i < 16; ++i)
      matrix_a[RowOfA(l, i)][ColumnOfA(l, i)] = static_cast<int8_t>(Byte(warp.a[l].w, i));
    for (uint32_t i = 0; i < 8; ++i)
      matrix_b[RowOfB(l, i)][ColumnOfB(l)] = Byte(warp.b[l].data(), i);
  }
  for (uint32_t l = 0; l < kLanes; ++l) {
    for (uint32_t i = 0; i < 4; ++i) {
      int64_t sum = warp.sums[l][i];
      for (uint32_t k = 0; k < 32; ++k)
        sum += int64_t{matrix_a[RowOfC(l, i)][k]} * matrix_b[k][ColumnOfC(l, i)];
      TALARIA_CHECK(sum == static_cast<int32_t>(sum));  // the bound of product_layout.h
      warp.sums[l][i] = static_cast<int32_t>(sum);
    }
  }
  warp.arrived = 0;
  const uint32_t first = thread_ - lane;
  for (uint32_t l = 0; l < kLanes; ++l) block_.fibers_[first + l]->state = State::kReady;
  block_.Yield(thread_);
}

}  // namespace talaria::gemm::cuda
