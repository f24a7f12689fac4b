// A whole CVM against a fake cloud, for tests: model, link, set-up, pool and session in one object.
#ifndef TALARIA_CVM_TESTING_RIG_H_
#define TALARIA_CVM_TESTING_RIG_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/mask_pool.h"
#include "talaria/cvm/session.h"
#include "talaria/cvm/setup.h"
#include "talaria/cvm/testing/fake_cloud.h"
#include "talaria/cvm/testing/synthetic_model.h"

namespace talaria::cvm::testing {

// Short enough for tests that wait for it, long enough for a sanitizer on a busy machine.
inline constexpr int kIdleTimeoutMs = 1500;

// Built once per process; tests that change a model take a copy.
inline const SyntheticModel& SharedModel() {
  static const SyntheticModel model = SyntheticModel::Make(1);
  return model;
}

inline CloudLinkOptions LinkOptions(const FakeCloud& cloud) {
  CloudLinkOptions options;
  options.endpoint = cloud.endpoint();
  options.idle_timeout_ms = kIdleTimeoutMs;
  return options;
}

inline std::unique_ptr<CloudLink> MakeLink(const FakeCloud& cloud) {
  Result<std::unique_ptr<CloudLink>> link = CloudLink::Create(LinkOptions(cloud));
  TALARIA_CHECK(link.ok());
  return std::move(link).value();
}

inline SetupOptions TestSetup(const SyntheticModel& model) {
  SetupOptions options;
  options.identity = model.identity();
  options.isa = DetectIsa();
  options.lock = LockPolicy::kWarnIfImpossible;
  return options;
}

// Reproducible keys, all different.
inline std::function<Status(std::span<uint8_t, 32>)> SeededEntropy(uint64_t seed) {
  struct State {
    std::mutex mutex;
    std::mt19937_64 random;
  };
  auto state = std::make_shared<State>();
  state->random.seed(seed);
  return [state](std::span<uint8_t, 32> key) {
    std::lock_guard lock(state->mutex);
    for (uint8_t& byte : key) byte = static_cast<uint8_t>(state->random());
    return OkStatus();
  };
}

inline MaskPoolOptions TestPool(const SyntheticModel& model, uint64_t batches, uint64_t seed = 7) {
  MaskPoolOptions options;
  options.memory_budget = batches * PlanMemory(model.manifest).pool_batch;
  options.isa = DetectIsa();
  options.lock = LockPolicy::kWarnIfImpossible;
  options.entropy = SeededEntropy(seed);
  return options;
}

struct RigOptions {
  uint64_t batches = 2;
  Isa isa = DetectIsa();
  int check_vectors = 2;
  uint32_t max_rows_per_message = 128;
  std::unique_ptr<MaskSource> masks = nullptr;  // instead of a pool
};

class Rig {
 public:
  explicit Rig(RigOptions options = {}, const SyntheticModel& synthetic = SharedModel())
      : model(synthetic), cloud(model), link(MakeLink(cloud)) {
    SetupOptions setup = TestSetup(model);
    setup.check_vectors = options.check_vectors;
    setup.isa = options.isa;
    Result<MaskedModel> result = SetUpModel(*link, setup);
    if (!result.ok()) ADD_FAILURE() << result.status().ToString();
    masked = std::move(result).value();
    if (options.masks) {
      source = std::move(options.masks);
    } else {
      MaskPoolOptions pool_options = TestPool(model, options.batches);
      pool_options.isa = options.isa;
      Result<std::unique_ptr<MaskPool>> made = MaskPool::Create(masked, pool_options);
      if (!made.ok()) ADD_FAILURE() << made.status().ToString();
      pool = made->get();
      source = std::move(made).value();
    }
    SessionOptions session_options;
    session_options.isa = options.isa;
    session_options.max_rows_per_message = options.max_rows_per_message;
    session = std::make_unique<Session>(masked, *link, *source, session_options);
  }

  const SyntheticModel& model;
  FakeCloud cloud;
  std::unique_ptr<CloudLink> link;
  MaskedModel masked;
  MaskPool* pool = nullptr;  // null with another source
  std::unique_ptr<MaskSource> source;
  std::unique_ptr<Session> session;
};

// Activations like a model's: mostly small, a few large.
inline std::vector<float> RandomRows(uint64_t seed, size_t rows, size_t d) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> out(rows * d);
  for (float& x : out) x = normal(random) * (random() % 50 == 0 ? 20.0f : 1.0f);
  return out;
}

// Outputs of one call: per member [rows][o], filled with a value that no product has.
struct Outputs {
  static constexpr float kUntouched = -1.25e30f;
  Outputs(const MaskedGroup& group, size_t rows) {
    for (const uint32_t o : group.member_outputs) values.emplace_back(rows * o, kUntouched);
    for (auto& member : values) pointers.push_back(member.data());
  }
  bool Untouched() const {
    return std::all_of(values.begin(), values.end(), [](const std::vector<float>& member) {
      return std::all_of(member.begin(), member.end(), [](float x) { return x == kUntouched; });
    });
  }
  std::vector<std::vector<float>> values;
  std::vector<float*> pointers;
};

inline Result<MultiplyResult> Multiply(Session& session, uint32_t group, uint32_t rows,
                                       const std::vector<float>& x, Outputs& out) {
  return session.Multiply(group, rows, x.data(), x.size() / std::max(rows, 1u), out.pointers);
}

// The result by definition: integers h = round(x / sigma), exact h W, then y (sigma scale). No mask
// anywhere.
inline std::vector<std::vector<float>> ExactProduct(const SyntheticModel& model,
                                                    const MaskedModel& masked, uint32_t group,
                                                    uint32_t rows, const std::vector<float>& x) {
  const MaskedGroup& g = masked.groups[group];
  std::vector<std::vector<float>> out;
  for (uint32_t m = 0; m < g.member_outputs.size(); ++m) {
    const SyntheticModel::Matrix& w = model.matrix(group, m);
    std::vector<float> values;
    for (uint32_t r = 0; r < rows; ++r) {
      const float* const row = x.data() + size_t{r} * g.d;
      const RowScale scale = g.certificate.ScaleFor(NormsOf(Isa::kPortable, row, g.d));
      for (uint32_t o = 0; o < w.o; ++o) {
        int64_t y = 0;
        for (uint32_t j = 0; j < g.d; ++j) {
          y += static_cast<int64_t>(std::nearbyintf(row[j] * scale.inverse)) *
               w.weights[size_t{o} * g.d + j];
        }
        values.push_back(static_cast<float>(y) * (scale.sigma * w.scales[o]));
      }
    }
    out.push_back(std::move(values));
  }
  return out;
}

inline bool IsZero(const SecretMemory& memory) {
  const auto bytes = memory.Expose();
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
}

}  // namespace talaria::cvm::testing

#endif  // TALARIA_CVM_TESTING_RIG_H_
