// Provisions small models of several architectures, made by llama.cpp's own test program.
#include "talaria/cloud/provision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>

#include "ggml.h"
#include "gguf.h"
#include "talaria/base/file.h"
#include "talaria/cloud/graph_probe.h"
#include "talaria/cloud/provision_source.h"
#include "talaria/model/store.h"
#include "talaria/model/store_layout.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/public_matrix.h"

namespace talaria::cloud {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using Groups = std::vector<std::vector<std::string>>;

std::string LlamaDir() {
  const char* dir = std::getenv("TALARIA_LLAMA_DIR");
  return dir == nullptr ? "" : dir;
}

class ProvisionTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    char name[] = "/tmp/talaria-provision-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    *models_ = name;
    const std::string command =
        "TALARIA_TEST_CPU_BACKEND='" + LlamaDir() +
        "/bin/libggml-cpu.so' LD_PRELOAD='" TALARIA_TEST_PRELOAD "' '" + LlamaDir() +
        "/bin/test-llama-archs' -a '^(llama|cohere2|phi2|gpt2|mamba|qwen35|hrm_text)$' -o '" +
        *models_ + "' >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  static void TearDownTestSuite() { fs::remove_all(*models_); }

  void SetUp() override {
    folder_ = *models_ + "/work";
    fs::create_directory(folder_);
    options_.gguf = Model("llama-dense");
    options_.store = folder_ + "/store";
    options_.llama_backend_dir = LlamaDir() + "/bin";
    options_.min_dimension = 64;
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string Model(const std::string& name) { return *models_ + "/" + name + ".gguf"; }
  // A copy of the dense llama with bytes changed: `offset` counts from the data of `tensor`, or
  // from the file without one.
  std::string Damaged(const std::string& tensor, uint64_t offset, Bytes bytes) {
    const std::string path = folder_ + "/damaged.gguf";
    fs::copy_file(Model("llama-dense"), path, fs::copy_options::overwrite_existing);
    const auto header = model::ReadGgufHeader(path, nullptr);
    for (const model::GgufTensor& t : header->tensors) {
      if (t.name == tensor) offset += header->data_offset + t.offset;
    }
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  void ExpectNothingLeft() const {
    for (const auto& entry : fs::directory_iterator(folder_))
      EXPECT_THAT(entry.path().string(), AnyOf(HasSubstr("damaged"), HasSubstr("kept")));
  }
  static Groups GroupsOf(const ProvisionSummary& summary) {
    Groups groups;
    for (const MatrixSummary& m : summary.matrices) {
      groups.resize(m.group + 1);
      groups[m.group].push_back(m.name);
    }
    return groups;
  }
  Groups Plan(const std::string& model) {
    options_.gguf = Model(model);
    options_.dry_run = true;
    const auto summary = Provision(options_);
    EXPECT_TRUE(summary.ok()) << summary.status().ToString();
    kept_ = summary.ok() ? summary->kept : std::vector<std::string>();
    return summary.ok() ? GroupsOf(*summary) : Groups();
  }

  static inline std::string* models_ = new std::string;
  std::string folder_;
  ProvisionOptions options_;
  std::vector<std::string> kept_;
};

TEST_F(ProvisionTest, StoreHoldsTheModel) {
  const auto summary = Provision(options_);
  ASSERT_TRUE(summary.ok()) << summary.status().ToString();
  auto store = model::Store::Open(options_.store);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EXPECT_EQ(store->identity(), summary->identity);
  const Status verified = store->VerifyDigests(nullptr);
  EXPECT_TRUE(verified.ok()) << verified.ToString();
  const model::Manifest& manifest = store->manifest();
  const auto source = SourceModel::Open(options_.gguf);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(manifest.source, Sha256Of(*ReadFile(options_.gguf, 1 << 30)));

  // Integers: within half a step of the source, which is F32.
  const Digest core = model::CoreDigest(manifest);
  std::mt19937_64 random(5);
  uint32_t index = 0;
  for (const model::MatrixRef& ref : model::AllMatrices(manifest)) {
    const auto& tensors = source->header().tensors;
    const auto tensor = std::find_if(tensors.begin(), tensors.end(),
                                     [&](const auto& t) { return t.name == ref.matrix->name; });
    ASSERT_NE(tensor, tensors.end());
    const uint32_t d = ref.group->d, o = ref.matrix->o;
    std::vector<uint8_t> raw(tensor->bytes), weights(uint64_t{d} * o), scales(o * 4),
        hints(ring::ModuleMatrixBytes(o));
    ASSERT_TRUE(source->Read(*tensor, 0, raw).ok());
    ASSERT_TRUE(store->ReadStream({model::StreamKind::kWeights, index}, 0, weights).ok());
    ASSERT_TRUE(store->ReadStream({model::StreamKind::kScales, index}, 0, scales).ok());
    ASSERT_TRUE(store->ReadStream({model::StreamKind::kHints, index}, 0, hints).ok());
    for (uint64_t at = 0; at < weights.size(); ++at) {
      const double scale = LoadLe<float>(scales.data() + at / d * 4);
      ASSERT_NEAR(LoadLe<float>(raw.data() + at * 4), static_cast<int8_t>(weights[at]) * scale,
                  scale * 0.50002);
    }
    EXPECT_LT(summary->matrices[index].relative_error, 0.02);
    // Hints: sampled entries by definition.
    std::vector<uint8_t> a(ring::ModuleMatrixBytes(d));
    ring::ExpandPublicMatrix(ring::PublicMatrixKey(1, core, d), 0, d, a);
    for (int sample = 0; sample < 50; ++sample) {
      const size_t column = random() % o, slot = random() % 256, i = random() % 8;
      uint64_t sum = 0;
      for (uint32_t j = 0; j < d; ++j) {
        const uint64_t w = ring::FromSigned(static_cast<int8_t>(weights[column * d + j]));
        sum = ring::AddMod(
            sum,
            ring::MulMod(ring::LoadResidue(a.data() + ring::ModuleMatrixOffset(j, slot, i)), w));
      }
      ASSERT_EQ(ring::LoadResidue(hints.data() + ring::ModuleMatrixOffset(column, slot, i)), sum);
    }
    ++index;
  }
  EXPECT_EQ(summary->cvm_hints_bytes, fs::file_size(options_.store + "/hints.bin"));
}

TEST_F(ProvisionTest, SkeletonIsTheSourceWithHoles) {
  const auto summary = Provision(options_);
  ASSERT_TRUE(summary.ok()) << summary.status().ToString();
  const std::string path = options_.store + "/skeleton.gguf";
  const auto source = model::ReadGgufHeader(options_.gguf, nullptr),
             skeleton = model::ReadGgufHeader(path, nullptr);
  ASSERT_TRUE(source.ok() && skeleton.ok()) << skeleton.status().ToString();
  const auto source_bytes = ReadFile(options_.gguf, 1 << 30), bytes = ReadFile(path, 1 << 30);
  ASSERT_EQ(source->tensors.size(), skeleton->tensors.size());
  EXPECT_TRUE(std::equal(source_bytes->begin(),
                         source_bytes->begin() + static_cast<ptrdiff_t>(source->tensors_offset),
                         bytes->begin()));
  size_t holes = 0;
  for (size_t i = 0; i < source->tensors.size(); ++i) {
    const model::GgufTensor &from = source->tensors[i], &to = skeleton->tensors[i];
    EXPECT_EQ(from.name, to.name);
    EXPECT_TRUE(std::equal(from.shape, from.shape + 4, to.shape));
    const Bytes data = Bytes(*bytes).subspan(skeleton->data_offset + to.offset, to.bytes);
    if (from.type != to.type) {
      ++holes;
      EXPECT_EQ(to.type, model::kGgufTypeI8);
      EXPECT_TRUE(std::all_of(data.begin(), data.end(), [](uint8_t b) { return b == 0; }));
    } else {
      const Bytes original =
          Bytes(*source_bytes).subspan(source->data_offset + from.offset, from.bytes);
      EXPECT_TRUE(std::equal(data.begin(), data.end(), original.begin(), original.end()))
          << to.name;
    }
  }
  EXPECT_EQ(holes, summary->matrices.size());
  // Fails closed: stock llama.cpp without the plug-in has no kernel for the holes.
  const auto uses = ProbeGraph({path, options_.llama_backend_dir});
  ASSERT_FALSE(uses.ok());
  EXPECT_THAT(uses.status().message(), AnyOf(HasSubstr("crashed"), HasSubstr("stopped")));
}

TEST_F(ProvisionTest, HeadsAreReadAsGgmlReadsThem) {
  for (const auto& entry : fs::directory_iterator(*models_)) {
    if (entry.path().extension() != ".gguf") continue;
    const auto ours = model::ReadGgufHeader(entry.path().string(), nullptr);
    ASSERT_TRUE(ours.ok()) << ours.status().ToString();
    gguf_context* ggml = gguf_init_from_file(entry.path().c_str(), {true, nullptr});
    ASSERT_NE(ggml, nullptr);
    EXPECT_EQ(gguf_get_data_offset(ggml), ours->data_offset);
    EXPECT_EQ(gguf_get_n_kv(ggml), static_cast<int64_t>(ours->keys));
    ASSERT_EQ(gguf_get_n_tensors(ggml), static_cast<int64_t>(ours->tensors.size()));
    for (size_t i = 0; i < ours->tensors.size(); ++i) {
      const auto id = static_cast<int64_t>(i);
      EXPECT_EQ(gguf_get_tensor_name(ggml, id), ours->tensors[i].name);
      EXPECT_EQ(gguf_get_tensor_offset(ggml, id), ours->tensors[i].offset);
      EXPECT_EQ(gguf_get_tensor_size(ggml, id), ours->tensors[i].bytes);
    }
    gguf_free(ggml);
  }
}

TEST_F(ProvisionTest, TypesAreGgmlsTypes) {
  for (uint32_t id = 0; id < GGML_TYPE_COUNT; ++id) {
    const ggml_type_traits* ggml = ggml_get_type_traits(static_cast<ggml_type>(id));
    const model::GgufType* ours = model::FindGgufType(id);
    ASSERT_EQ(ours != nullptr, ggml->blck_size != 0) << id;
    if (ours == nullptr) continue;
    EXPECT_EQ(ours->block, ggml->blck_size) << id;
    EXPECT_EQ(ours->bytes, ggml->type_size) << id;
    EXPECT_EQ(ours->name, ggml->type_name) << id;
  }
  EXPECT_EQ(model::FindGgufType(GGML_TYPE_COUNT), nullptr);
}

TEST_F(ProvisionTest, ThreadsAndInstructionsDoNotChangeTheStore) {
  options_.keep_local = {"ffn", "output"};
  options_.threads = 1;
  options_.device.isa = Isa::kPortable;
  ASSERT_TRUE(Provision(options_).ok());
  options_.store = folder_ + "/second";
  options_.threads = 3;
  options_.device.isa = Isa::kAvx512;
  ASSERT_TRUE(Provision(options_).ok());
  for (const char* file :
       {"manifest.json", "skeleton.gguf", "weights.gguf", "scales.bin", "hints.bin"}) {
    EXPECT_EQ(*ReadFile(folder_ + "/store/" + file, 1 << 30),
              *ReadFile(folder_ + "/second/" + file, 1 << 30))
        << file;
  }
}

TEST_F(ProvisionTest, GroupsOfArchitectures) {
  // The last layer drops rows between attention and feed-forward, so its group is smaller.
  const Groups cohere2 = Plan("cohere2-dense");
  EXPECT_EQ(cohere2[0], (std::vector<std::string>{"blk.0.attn_q.weight", "blk.0.attn_k.weight",
                                                  "blk.0.attn_v.weight", "blk.0.ffn_gate.weight",
                                                  "blk.0.ffn_up.weight"}));
  EXPECT_EQ(cohere2[3], (std::vector<std::string>{"blk.1.attn_q.weight", "blk.1.attn_k.weight",
                                                  "blk.1.attn_v.weight"}));
  EXPECT_EQ(cohere2.back(), (std::vector<std::string>{"token_embd.weight"}));

  const Groups phi2 = Plan("phi2-dense");
  EXPECT_THAT(phi2[0], Contains("blk.0.ffn_up.weight"));

  EXPECT_EQ(Plan("gpt2-dense")[0], (std::vector<std::string>{"blk.0.attn_qkv.weight"}));
  EXPECT_THAT(kept_, Contains("position_embd.weight: used by GET_ROWS"));

  EXPECT_EQ(Plan("mamba-dense")[0], (std::vector<std::string>{"blk.0.ssm_in.weight"}));
  EXPECT_THAT(kept_, Contains("blk.0.ssm_conv1d.weight: used by SSM_CONV"));

  EXPECT_EQ(Plan("qwen35-dense")[0],
            (std::vector<std::string>{"blk.0.attn_qkv.weight", "blk.0.attn_gate.weight"}));

  // Its layers run several times per evaluation.
  EXPECT_EQ(Plan("hrm_text-dense"), (Groups{{"output.weight"}}));
  EXPECT_THAT(kept_, Contains("blk.0.attn_q.weight: used by 4 products of one evaluation"));
}

TEST_F(ProvisionTest, TiedHeadIsInTheStoreAndInTheSkeleton) {
  options_.gguf = Model("cohere2-dense");
  options_.keep_local = {"blk"};
  ASSERT_TRUE(Provision(options_).ok());
  auto store = model::Store::Open(options_.store);
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE(store->VerifyDigests(nullptr).ok());
  EXPECT_TRUE(store->manifest().holes.empty());
  ASSERT_EQ(store->manifest().groups.size(), 1u);
  EXPECT_EQ(store->manifest().groups[0].matrices[0].role, model::Role::kTiedHead);
  // Without holes it is a whole model.
  EXPECT_TRUE(ProbeGraph({options_.store + "/skeleton.gguf", options_.llama_backend_dir}).ok());
}

TEST_F(ProvisionTest, RefusesMixturesOfExperts) {
  options_.gguf = Model("llama-moe");
  const auto summary = Provision(options_);
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().code(), Code::kUnsupported);
  EXPECT_THAT(summary.status().message(), HasSubstr("mixture of experts"));
  ExpectNothingLeft();
}

TEST_F(ProvisionTest, RefusesDamagedModels) {
  const auto expect = [&](const std::string& path, Code code, const std::string& text) {
    options_.gguf = path;
    const auto summary = Provision(options_);
    ASSERT_FALSE(summary.ok()) << text;
    EXPECT_EQ(summary.status().code(), code) << summary.status().ToString();
    EXPECT_THAT(summary.status().message(), HasSubstr(text));
    ExpectNothingLeft();
  };
  expect(Damaged("", 0, AsBytes("GGML")), Code::kCorrupt, "GGUF");
  expect(folder_ + "/none", Code::kNotFound, "none");
  const std::string truncated = Damaged("", 0, AsBytes("GGUF"));
  fs::resize_file(truncated, fs::file_size(truncated) / 2);
  expect(truncated, Code::kCorrupt, "truncated");
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  const auto raw = [](const float& x) {
    return Bytes(reinterpret_cast<const uint8_t*>(&x), sizeof(x));
  };
  expect(Damaged("blk.1.ffn_up.weight", 400, raw(nan)), Code::kCorrupt, "blk.1.ffn_up.weight");
  expect(Damaged("token_embd.weight", 0, raw(infinity)), Code::kCorrupt, "token_embd.weight");
  // The architecture's name is the first value that reads "llama".
  const auto bytes = ReadFile(Model("llama-dense"), 1 << 30);
  const std::string text(bytes->begin(), bytes->begin() + 4096);
  expect(Damaged("", text.find("llama"), AsBytes("lluma")), Code::kUnsupported,
         "unknown model architecture");
}

TEST_F(ProvisionTest, StoppedRunsLeaveNothing) {
  for (const std::string stage : {"reading the graph", "reading the model", "writing the skeleton",
                                  "quantising", "computing hints", "writing to disk"}) {
    std::atomic<bool> cancel{false};
    bool seen = false;
    options_.cancel = &cancel;
    options_.on_progress = [&](std::string_view name, uint64_t, uint64_t) {
      if (name == stage) seen = cancel = true;
    };
    const auto summary = Provision(options_);
    EXPECT_TRUE(seen) << stage;
    ASSERT_FALSE(summary.ok()) << stage;
    EXPECT_EQ(summary.status().code(), Code::kCancelled);
    ExpectNothingLeft();
  }
}

TEST_F(ProvisionTest, FullDiskLeavesNothing) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};  // stands for a full disk
    setrlimit(RLIMIT_FSIZE, &limit);
    const auto summary = Provision(options_);
    _exit(!summary.ok() && summary.status().code() == Code::kResourceExhausted ? 0 : 1);
  }
  int state = 0;
  waitpid(child, &state, 0);
  EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0);
  ExpectNothingLeft();
}

TEST_F(ProvisionTest, DryRunWritesNothing) {
  options_.dry_run = true;
  const auto summary = Provision(options_);
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->matrices.size(), 15u);
  EXPECT_EQ(summary->identity, Digest{});
  EXPECT_GT(summary->disk_needed, summary->hints_bytes);
  ExpectNothingLeft();
}

TEST_F(ProvisionTest, NeverOverwrites) {
  options_.store = folder_ + "/kept";
  fs::create_directory(options_.store);
  EXPECT_EQ(Provision(options_).status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(fs::is_empty(options_.store));
}

}  // namespace
}  // namespace talaria::cloud
