// Makes batches of mask rows: 256 rows M [256 x d] and their unmask rows U [256 x o] under one
// fresh secret.
//   M = s A + E,  U = s (A W):  so that (h + M) W - U = h W + E W, and E W is small
//   (doc/masking.md)
// Each batch has its own 256-bit key, from which two AES-256-CTR streams give s and E; nothing is
// shared between batches.
#ifndef TALARIA_CVM_MASK_BATCH_H_
#define TALARIA_CVM_MASK_BATCH_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "talaria/base/cpu.h"
#include "talaria/base/result.h"
#include "talaria/base/secret.h"
#include "talaria/cvm/masked_model.h"
#include "talaria/ring/batch.h"

namespace talaria::cvm {

// Where one batch goes: RowPanels of d_padded and o_padded columns, each plus kSlack, 16-byte
// aligned.
struct BatchRows {
  uint8_t* mask = nullptr;
  uint8_t* unmask = nullptr;
};

// The linear self-test has s and E on both sides, so it cannot see that they are degenerate, and a
// mask without an error is no mask (doc/masking.md). All ones when the sum of the squares of
// `errors` errors is within 16 standard deviations of its mean, 10.5 a sample (variance of e^2
// below 2 * 10.5^2; a good batch fails with probability below 2^-180), and no secret polynomial is
// constant; else zero.
uint64_t LooksRandom(const ring::NttSecret& s, uint64_t squares, size_t errors);

// One thread at a time; each fill thread has its own.
class BatchGenerator {
 public:
  // Fills 32 bytes of fresh entropy.
  using Entropy = std::function<Status(std::span<uint8_t, 32>)>;

  // `model` must outlive the generator. kResourceExhausted; kInternal when a sampler is wrong.
  static Result<std::unique_ptr<BatchGenerator>> Create(const MaskedModel& model, Isa isa,
                                                        LockPolicy lock, Entropy entropy);
  ~BatchGenerator();

  // 1..4 batches of one group in one pass over its hints. Every row is tested before this returns
  // (U . v = (M - E) . u, with the group's check vectors). Unless it returns OK, nothing of the
  // batches may be used and their rows are wiped: kCancelled when `cancel` became true,
  // kSessionEnded when the test failed, or the entropy source's error. Key, s, E and all scratch
  // are wiped in every case.
  Status Generate(uint32_t group, std::span<const BatchRows> batches,
                  const std::atomic<bool>& cancel);

  // CPU time of all self-tests so far.
  double self_test_seconds() const;

 private:
  BatchGenerator();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASK_BATCH_H_
