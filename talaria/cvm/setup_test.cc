#include "talaria/cvm/setup.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <limits>

#include "talaria/cvm/testing/rig.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/modq.h"

namespace talaria::cvm {
namespace {

using namespace testing;
using wire::Type;

void ExpectSetUp(const SyntheticModel& model, const MaskedModel& masked, int check_vectors) {
  EXPECT_EQ(masked.identity, model.identity());
  EXPECT_EQ(masked.manifest_text, model.manifest_text);
  ASSERT_EQ(masked.groups.size(), model.manifest.groups.size());
  for (uint32_t g = 0; g < masked.groups.size(); ++g) {
    const MaskedGroup& group = masked.groups[g];
    ASSERT_EQ(group.u.Expose<uint64_t>().size(),
              static_cast<size_t>(check_vectors) * group.d_padded);
    ASSERT_EQ(group.v.Expose<uint64_t>().size(),
              static_cast<size_t>(check_vectors) * group.o_padded);
    WeightNorms norms;
    for (size_t k = 0; k < static_cast<size_t>(check_vectors); ++k) {
      const auto u = group.u.Expose<uint64_t>().subspan(k * group.d_padded, group.d_padded);
      const auto v = group.v.Expose<uint64_t>().subspan(k * group.o_padded, group.o_padded);
      for (size_t j = 0; j < group.d_padded; ++j) {
        uint64_t expected = 0;
        for (uint32_t m = 0; m < group.hints.size() && j < group.d; ++m) {
          const SyntheticModel::Matrix& w = model.matrix(g, m);
          for (size_t o = 0; o < w.o; ++o) {
            const uint64_t weight = ring::FromSigned(w.weights[o * w.d + j]);
            expected = ring::AddMod(expected, ring::MulMod(weight, v[group.member_offsets[m] + o]));
          }
        }
        ASSERT_EQ(u[j], expected);
      }
      for (const uint64_t value : v) EXPECT_LT(value, ring::kQ);
    }
    for (uint32_t m = 0; m < group.hints.size(); ++m) {
      const SyntheticModel::Matrix& w = model.matrix(g, m);
      EXPECT_TRUE(norms.Add(w.weights, w.d).ok());
      EXPECT_EQ(std::memcmp(group.hints[m].Expose().data(), w.hints.data(), w.hints.size()), 0);
      EXPECT_EQ(std::memcmp(group.scales.data() + group.member_offsets[m], w.scales.data(),
                            w.scales.size() * 4),
                0);
    }
    EXPECT_EQ(group.certificate.delta_log2, Certificate::Compute(norms, group.d)->delta_log2);
    EXPECT_EQ(group.certificate.bound, Certificate::Compute(norms, group.d)->bound);
    EXPECT_TRUE(masked.public_matrices.contains(group.d));
  }
}

TEST(SetupTest, AnHonestModel) {
  const SyntheticModel& model = SharedModel();
  FakeCloud cloud(model);
  for (const int threads : {1, 2}) {
    for (const int vectors : {1, 2}) {
      for (const Isa isa : SupportedIsas()) {
        const std::unique_ptr<CloudLink> link = MakeLink(cloud);
        SetupOptions options = TestSetup(model);
        options.threads = threads;
        options.check_vectors = vectors;
        options.isa = isa;
        uint64_t last_done = 0, last_total = 0;
        options.on_progress = [&](std::string_view, uint64_t done, uint64_t total) {
          last_done = done, last_total = total;
        };
        const Result<MaskedModel> masked = SetUpModel(*link, options);
        ASSERT_TRUE(masked.ok()) << masked.status().ToString();
        ExpectSetUp(model, *masked, vectors);
        EXPECT_EQ(last_done, last_total);
        EXPECT_GT(last_total, 0u);
      }
    }
  }
}

TEST(SetupTest, CheckVectorsAreFreshEachTime) {
  const SyntheticModel& model = SharedModel();
  FakeCloud cloud(model);
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  const Result<MaskedModel> a = SetUpModel(*link, TestSetup(model)),
                            b = SetUpModel(*link, TestSetup(model));
  ASSERT_TRUE(a.ok() && b.ok());
  const auto v = a->groups[0].v.Expose<uint64_t>(), w = b->groups[0].v.Expose<uint64_t>();
  size_t equal = 0;
  for (size_t i = 0; i < v.size(); ++i) equal += v[i] == w[i] ? 1 : 0;
  EXPECT_EQ(equal, 0u);
}

TEST(SetupTest, TheSkeletonIsWholeSparseAndSealed) {
  const SyntheticModel& model = SharedModel();
  FakeCloud cloud(model);
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  const Result<MaskedModel> masked = SetUpModel(*link, TestSetup(model));
  ASSERT_TRUE(masked.ok());
  const int fd = masked->skeleton.get();
  struct stat info;
  ASSERT_EQ(fstat(fd, &info), 0);
  ASSERT_EQ(static_cast<uint64_t>(info.st_size), model.manifest.skeleton_bytes);
  EXPECT_LT(info.st_blocks * 512, info.st_size);
  std::vector<uint8_t> file(model.manifest.skeleton_bytes),
      expected(model.manifest.skeleton_bytes, 0);
  ASSERT_TRUE(ReadAt(masked->skeleton, 0, file).ok());
  size_t from = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    bool hole = false;
    for (const model::Hole& h : model.manifest.holes)
      hole = hole || (i >= h.offset && i < h.offset + h.bytes);
    if (!hole) expected[i] = model.skeleton[from++];
  }
  EXPECT_EQ(file, expected);
  EXPECT_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  EXPECT_LT(pwrite(fd, "x", 1, 0), 0);
  EXPECT_NE(ftruncate(fd, 0), 0);
}

// What a provider or a cloud may change. `reseal`: the digests and the identity fit the change, so
// only the check behind them can find it.
struct Forgery {
  const char* name;
  bool reseal;
  std::function<void(SyntheticModel&)> forge;
};

TEST(SetupTest, EveryForgeryEndsTheSession) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  const auto scale = [](float value) {
    return [value](SyntheticModel& m) { m.matrices[3].scales[17] = value; };
  };
  const auto hint = [](size_t matrix, size_t column, uint64_t change) {
    return [=](SyntheticModel& m) {
      uint8_t* const at =
          m.matrices[matrix].hints.data() + ring::ModuleMatrixOffset(column, 200, 3);
      ring::StoreResidue(at, ring::AddMod(ring::LoadResidue(at), change));
    };
  };
  const std::vector<Forgery> forgeries = {
      {"one hint, with its digest", true, hint(0, 5, 1)},
      {"one hint in the last column of a group", true, hint(2, 32, ring::kQ - 1)},
      {"one hint of the last matrix", true, hint(6, 129, uint64_t{1} << 40)},
      {"a hint in the padding", true, hint(2, 35, 1)},
      {"one hint, old digest", false, hint(1, 0, 1)},
      {"hints of two matrices swapped", true,
       [](SyntheticModel& m) { std::swap(m.matrices[4].hints, m.matrices[5].hints); }},
      {"hints of zeros", true,
       [](SyntheticModel& m) {
         std::fill(m.matrices[3].hints.begin(), m.matrices[3].hints.end(), uint8_t{0});
       }},
      {"one weight, with its digest", true,
       [](SyntheticModel& m) { m.matrices[0].weights[77] ^= 1; }},
      {"one weight, old digest", false, [](SyntheticModel& m) { m.matrices[6].weights[0] ^= 1; }},
      {"weight -128, all else consistent", true,
       [](SyntheticModel& m) {
         m.matrices[3].weights[1234] = -128;
         m.Seal();
         m.ComputeHints();
       }},
      {"scale NaN", true, scale(nan)},
      {"scale infinite", true, scale(infinity)},
      {"scale zero", true, scale(0.0f)},
      {"scale negative", true, scale(-1.0f)},
      {"scale changed, old digest", false, scale(0.5f)},
      {"skeleton changed", false, [](SyntheticModel& m) { m.skeleton[40001] ^= 1; }},
      {"manifest with one key twice", false,
       [](SyntheticModel& m) { m.manifest_text.insert(2, "  \"format_version\": 1,\n"); }},
      {"manifest of another profile", false,
       [](SyntheticModel& m) {
         m.manifest.profile = 2, m.manifest_text = model::EncodeManifest(m.manifest);
       }},
      {"manifest is empty", false, [](SyntheticModel& m) { m.manifest_text.clear(); }},
      {"manifest is garbage", false, [](SyntheticModel& m) { m.manifest_text = "{}"; }},
  };
  for (const Forgery& forgery : forgeries) {
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(forgery.name);
      SyntheticModel model = SharedModel();
      forgery.forge(model);
      if (forgery.reseal) model.Seal();
      FakeCloud cloud(model);
      const std::unique_ptr<CloudLink> link = MakeLink(cloud);
      SetupOptions options = TestSetup(model);
      options.threads = threads;
      const Result<MaskedModel> masked = SetUpModel(*link, options);
      EXPECT_EQ(masked.status().code(), Code::kSessionEnded);
      EXPECT_EQ(masked.status().message(), "the session has ended");
      const uint64_t bytes = cloud.bytes_received();
      EXPECT_EQ(link->Identity().status().code(), Code::kSessionEnded);
      EXPECT_EQ(SetUpModel(*link, options).status().code(), Code::kSessionEnded);
      EXPECT_EQ(cloud.bytes_received(), bytes);
    }
  }
}

// A cloud whose store is right and that changes bytes on the way, or answers with other frames.
TEST(SetupTest, EveryLieOnTheWireEndsTheSession) {
  const auto on_chunk = [](model::StreamKind kind,
                           std::function<void(Reply&)> lie) -> FakeCloud::Hook {
    return [=](const Request& request, Reply& reply) {
      if (request.type == Type::kFetch && reply.frame[4] == static_cast<uint8_t>(Type::kChunk) &&
          reply.body()[0] == static_cast<uint8_t>(kind)) {
        lie(reply);
      }
    };
  };
  const auto flip = [](Reply& r) { r.frame.back() ^= 0x10; };
  const auto truncate = [](Reply& r) {
    r.frame.pop_back();
    const uint32_t length = static_cast<uint32_t>(r.frame.size() - 4);
    std::memcpy(r.frame.data(), &length, 4);
  };
  const auto lengthen = [](Reply& r) {
    r.frame.push_back(0);
    const uint32_t length = static_cast<uint32_t>(r.frame.size() - 4);
    std::memcpy(r.frame.data(), &length, 4);
  };
  for (const model::StreamKind kind :
       {model::StreamKind::kManifest, model::StreamKind::kSkeleton, model::StreamKind::kScales,
        model::StreamKind::kWeights, model::StreamKind::kHints}) {
    const std::vector<FakeCloud::Hook> hooks = {
        on_chunk(kind, flip),
        on_chunk(kind, truncate),
        on_chunk(kind, lengthen),
        on_chunk(kind, [](Reply& r) { r.body()[1] ^= 1; }),  // another matrix
        on_chunk(kind, [](Reply& r) { r.body()[5] ^= 1; }),  // another offset
        on_chunk(kind, [](Reply& r) { r.frame[4] = static_cast<uint8_t>(Type::kProduct); })};
    for (size_t i = 0; i < hooks.size(); ++i) {
      SCOPED_TRACE(std::to_string(static_cast<int>(kind)) + " " + std::to_string(i));
      FakeCloud cloud(SharedModel());
      cloud.SetHook(hooks[i]);
      const std::unique_ptr<CloudLink> link = MakeLink(cloud);
      EXPECT_EQ(SetUpModel(*link, TestSetup(SharedModel())).status().code(), Code::kSessionEnded);
      EXPECT_EQ(link->Identity().status().code(), Code::kSessionEnded);
    }
  }
}

TEST(SetupTest, AnotherModelThanTheOneAskedForIsRefusedBeforeItIsFetched) {
  FakeCloud cloud(SharedModel());
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  SetupOptions options = TestSetup(SharedModel());
  options.identity->at(0) ^= 1;
  EXPECT_EQ(SetUpModel(*link, options).status().code(), Code::kSessionEnded);
  EXPECT_EQ(cloud.CountRequests(Type::kFetch), 0u);
}

TEST(SetupTest, ALostConnectionIsResumedAndALostCloudIsUnavailable) {
  FakeCloud cloud(SharedModel());
  cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == Type::kFetch && request.number % 3 == 2) reply = {{}, Reply::Then::kClose};
  });
  {
    const std::unique_ptr<CloudLink> link = MakeLink(cloud);
    const Result<MaskedModel> masked = SetUpModel(*link, TestSetup(SharedModel()));
    ASSERT_TRUE(masked.ok()) << masked.status().ToString();
    ExpectSetUp(SharedModel(), *masked, 2);
    EXPECT_GT(link->stats().retries, 5u);
  }
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  cloud.SetHook([](const Request& request, Reply& reply) {
    Result<wire::Fetch> fetch = wire::DecodeFetch(request.body);
    if (request.type == Type::kFetch && fetch->stream.kind == model::StreamKind::kHints)
      reply = {{}, Reply::Then::kClose};
  });
  EXPECT_EQ(SetUpModel(*link, TestSetup(SharedModel())).status().code(), Code::kUnavailable);
  cloud.SetHook(nullptr);
  EXPECT_TRUE(SetUpModel(*link, TestSetup(SharedModel())).ok());  // the link lives
}

TEST(SetupTest, TheBudgetIsKeptBeforeAnythingLargeIsFetched) {
  FakeCloud cloud(SharedModel());
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  SetupOptions options = TestSetup(SharedModel());
  const MemoryPlan plan = PlanMemory(SharedModel().manifest);
  options.memory_budget = plan.hints + plan.public_matrices + plan.skeleton_data - 1;
  const Status status = SetUpModel(*link, options).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_NE(status.message().find("MiB"), std::string::npos);
  for (const Request& request : cloud.Requests(Type::kFetch)) {
    EXPECT_EQ(wire::DecodeFetch(request.body)->stream.kind, model::StreamKind::kManifest);
  }
  options.memory_budget += 1;
  EXPECT_TRUE(SetUpModel(*link, options).ok());
}

TEST(SetupTest, BadOptions) {
  FakeCloud cloud(SharedModel());
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  SetupOptions options = TestSetup(SharedModel());
  options.check_vectors = 0;
  EXPECT_EQ(SetUpModel(*link, options).status().code(), Code::kInvalidArgument);
  options.check_vectors = 3;
  EXPECT_EQ(SetUpModel(*link, options).status().code(), Code::kInvalidArgument);
}

TEST(SetupTest, PlanCountsSlackAndPages) {
  const MemoryPlan plan = PlanMemory(SharedModel().manifest);
  uint64_t hints = 0;
  for (const auto& matrix : SharedModel().matrices) hints += matrix.hints.size();
  EXPECT_GT(plan.hints, hints);
  EXPECT_EQ(plan.skeleton_data, SharedModel().skeleton.size());
  EXPECT_GT(plan.public_matrices, ring::ModuleMatrixBytes(128) + ring::ModuleMatrixBytes(200));
  // Groups: d_padded 128, 256, 128, 128 and o_padded 224, 96, 128, 160.
  EXPECT_GT(plan.pool_batch, uint64_t{256 * 6} * (128 + 256 + 128 + 128 + 224 + 96 + 128 + 160));
}

}  // namespace
}  // namespace talaria::cvm
