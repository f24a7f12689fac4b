#include "talaria/model/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "talaria/base/testing/temp_folder.h"
#include "talaria/model/gguf_header.h"
#include "talaria/model/store_layout.h"
#include "talaria/model/store_writer.h"
#include "talaria/model/testing/small_store.h"
#include "talaria/ring/layout.h"

namespace talaria::model {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class StoreTest : public ::testing::Test {
 protected:
  // One store is made for all tests; each gets a copy.
  static void SetUpTestSuite() {
    master_ = std::make_unique<TempFolder>();
    auto manifest = testing::WriteSmallStore(master_->File("small"), 1);
    ASSERT_TRUE(manifest.ok()) << manifest.status().ToString();
    *master_manifest_ = *manifest;
  }
  static void TearDownTestSuite() { master_.reset(); }
  void Write() {
    fs::copy(master_->File("small"), store_, fs::copy_options::recursive);
    manifest_ = *master_manifest_;
  }
  std::string File(const char* name) const { return store_ + "/" + name; }
  void FlipBit(const char* name, uint64_t offset) {
    const int fd = open(File(name).c_str(), O_RDWR);
    uint8_t byte = 0;
    ASSERT_EQ(pread(fd, &byte, 1, static_cast<off_t>(offset)), 1);
    byte ^= 1;
    ASSERT_EQ(pwrite(fd, &byte, 1, static_cast<off_t>(offset)), 1);
    close(fd);
  }
  void Put(const char* name, uint64_t offset, const void* data, size_t size) {
    const int fd = open(File(name).c_str(), O_RDWR);
    ASSERT_EQ(pwrite(fd, data, size, static_cast<off_t>(offset)), static_cast<ssize_t>(size));
    close(fd);
  }
  Status Verify() {
    auto store = Store::Open(store_);
    return store.ok() ? store->VerifyDigests(nullptr) : store.status();
  }
  // What Create() left in the folder besides finished stores.
  std::vector<std::string> Partials() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().filename().string().find(".partial-") != std::string::npos)
        found.push_back(entry.path().string());
    }
    return found;
  }

  static inline std::unique_ptr<TempFolder> master_;
  static inline Manifest* master_manifest_ = new Manifest;
  const TempFolder temp_;
  const std::string& folder_ = temp_.path();
  const std::string store_ = temp_.File("small");
  Manifest manifest_;
};

TEST_F(StoreTest, OpensAndVerifies) {
  Write();
  auto store = Store::Open(store_);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EXPECT_EQ(store->manifest_text(), EncodeManifest(manifest_));
  EXPECT_EQ(store->identity(), ModelIdentity(store->manifest_text()));
  uint64_t bytes = 0;
  const Status verified = store->VerifyDigests([&](uint64_t n) { bytes += n; });
  EXPECT_TRUE(verified.ok()) << verified.ToString();
  EXPECT_LE(bytes, store->TotalBytes());
  EXPECT_GE(bytes + 32 * 5, store->TotalBytes());  // padding of weights.gguf
}

TEST_F(StoreTest, SameInputSameBytes) {
  Write();
  ASSERT_TRUE(testing::WriteSmallStore(store_ + "2", 1).ok());
  ASSERT_TRUE(testing::WriteSmallStore(store_ + "3", 2).ok());
  for (const char* name : {kManifestFile, kSkeletonFile, kWeightsFile, kScalesFile, kHintsFile}) {
    const auto a = ReadFile(File(name), 1 << 30), b = ReadFile(store_ + "2/" + name, 1 << 30),
               c = ReadFile(store_ + "3/" + name, 1 << 30);
    ASSERT_TRUE(a.ok() && b.ok() && c.ok());
    EXPECT_EQ(*a, *b) << name;
    EXPECT_NE(*a, *c) << name;
  }
}

TEST_F(StoreTest, StreamsHaveTheirDigestsInAnyChunking) {
  Write();
  auto store = Store::Open(store_);
  ASSERT_TRUE(store.ok());
  const auto digest = [&](StreamId id, size_t chunk) {
    const uint64_t size = *store->StreamBytes(id);
    Sha256 hash;
    std::vector<uint8_t> buffer(chunk);
    for (uint64_t at = 0; at < size; at += chunk) {
      const MutableBytes part(buffer.data(), std::min<uint64_t>(chunk, size - at));
      EXPECT_TRUE(store->ReadStream(id, at, part).ok());
      hash.Update(part);
    }
    return hash.Finish();
  };
  for (const size_t chunk : {size_t{777}, size_t{4096}, size_t{1} << 22}) {
    EXPECT_EQ(digest({StreamKind::kManifest, 0}, chunk), store->identity());
    EXPECT_EQ(digest({StreamKind::kSkeleton, 0}, chunk), manifest_.skeleton);
    uint32_t index = 0;
    for (const MatrixRef& ref : AllMatrices(manifest_)) {
      EXPECT_EQ(digest({StreamKind::kWeights, index}, chunk), ref.matrix->weights);
      EXPECT_EQ(digest({StreamKind::kScales, index}, chunk), ref.matrix->scales);
      EXPECT_EQ(digest({StreamKind::kHints, index}, chunk), ref.matrix->hints);
      ++index;
    }
  }
  EXPECT_EQ(*store->StreamBytes({StreamKind::kWeights, 1}), 48u * 33);
  EXPECT_EQ(*store->StreamBytes({StreamKind::kScales, 1}), 33u * 4);
  EXPECT_EQ(*store->StreamBytes({StreamKind::kHints, 1}), ring::ModuleMatrixBytes(33));
  EXPECT_EQ(*store->StreamBytes({StreamKind::kSkeleton, 0}), 20000u - 5000 - 4096);
}

TEST_F(StoreTest, RefusesStreamsAndRangesThatAreNone) {
  Write();
  auto store = Store::Open(store_);
  ASSERT_TRUE(store.ok());
  std::vector<uint8_t> buffer(10);
  EXPECT_EQ(store->StreamBytes({StreamKind::kWeights, 4}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(store->StreamBytes({StreamKind::kManifest, 1}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(store->StreamBytes({static_cast<StreamKind>(9), 0}).status().code(),
            Code::kInvalidArgument);
  const uint64_t size = *store->StreamBytes({StreamKind::kScales, 0});
  EXPECT_EQ(store->ReadStream({StreamKind::kScales, 0}, size - 9, buffer).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(store->ReadStream({StreamKind::kScales, 0}, UINT64_MAX - 3, buffer).code(),
            Code::kInvalidArgument);
  EXPECT_TRUE(store->ReadStream({StreamKind::kScales, 0}, size - 10, buffer).ok());
  EXPECT_TRUE(store->ReadStream({StreamKind::kSkeleton, 0}, 20000 - 5000 - 4096, {}).ok());
}

TEST_F(StoreTest, WeightsFileIsGguf) {
  Write();
  std::vector<uint8_t> head;
  const auto header = ReadGgufHeader(File(kWeightsFile), &head);
  ASSERT_TRUE(header.ok()) << header.status().ToString();
  const StoreLayout layout = LayoutOf(manifest_);
  EXPECT_EQ(head, layout.weights_header);
  ASSERT_EQ(header->tensors.size(), 4u);
  EXPECT_EQ(header->tensors[3].name, "token_embd.weight");
  EXPECT_EQ(header->tensors[3].type, kGgufTypeI8);
  EXPECT_EQ(header->data_offset + header->tensors[2].offset, layout.weights[2]);
}

TEST_F(StoreTest, SkeletonIsSparse) {
  Manifest plan;
  plan.skeleton_bytes = uint64_t{1} << 30;
  plan.holes = {{4096, (uint64_t{1} << 30) - 4096}};
  plan.groups = {{64, {{"w.weight", Role::kLinear, 8, {}, {}, {}}}}};
  auto writer = StoreWriter::Create(store_, plan);
  ASSERT_TRUE(writer.ok()) << writer.status().ToString();
  ASSERT_TRUE(writer->WriteSkeleton(0, std::vector<uint8_t>(4096, 1)).ok());
  struct stat info {};
  ASSERT_EQ(stat((Partials().at(0) + "/skeleton.gguf").c_str(), &info), 0);
  EXPECT_EQ(info.st_size, 1 << 30);
  EXPECT_LT(info.st_blocks * 512, 1 << 20);
}

TEST_F(StoreTest, NoManifestNoStore) {
  EXPECT_EQ(Store::Open(store_).status().code(), Code::kNotFound);
  Write();
  fs::remove(File(kManifestFile));
  const Status status = Store::Open(store_).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("talaria-cloud provision"));
}

TEST_F(StoreTest, MissingTruncatedOrLongerFilesAreCorrupt) {
  for (const char* name : {kSkeletonFile, kWeightsFile, kScalesFile, kHintsFile}) {
    Write();
    const auto size = fs::file_size(File(name));
    fs::resize_file(File(name), size - 1);
    EXPECT_EQ(Store::Open(store_).status().code(), Code::kCorrupt) << name;
    fs::resize_file(File(name), size + 1);
    const Status longer = Store::Open(store_).status();
    EXPECT_EQ(longer.code(), Code::kCorrupt) << name;
    EXPECT_THAT(longer.message(), HasSubstr(name));
    fs::remove(File(name));
    EXPECT_EQ(Store::Open(store_).status().code(), Code::kCorrupt) << name;
    fs::remove_all(store_);
  }
}

TEST_F(StoreTest, EveryFlippedBitIsFound) {
  Write();
  const StoreLayout layout = LayoutOf(manifest_);
  const std::tuple<const char*, uint64_t, const char*> places[] = {
      {kSkeletonFile, 0, kSkeletonFile},
      {kSkeletonFile, 19999, kSkeletonFile},
      {kSkeletonFile, 4096 + 2500, "hole"},
      {kWeightsFile, 30, "head"},
      {kWeightsFile, layout.weights[2] + 5, "ffn_down"},
      {kScalesFile, layout.scales[1], "attn_k"},
      {kHintsFile, layout.hints[3] + 100, "token_embd"},
      {kHintsFile, layout.hints_bytes - 1, "token_embd"},
  };
  ASSERT_TRUE(Verify().ok());
  for (const auto& [file, offset, what] : places) {
    FlipBit(file, offset);
    const Status status = Verify();
    EXPECT_EQ(status.code(), Code::kCorrupt) << file << " " << offset;
    EXPECT_THAT(status.message(), HasSubstr(what));
    FlipBit(file, offset);
  }
  EXPECT_TRUE(Verify().ok());
}

TEST_F(StoreTest, ManifestOfAnotherStoreIsFound) {
  Write();
  ASSERT_TRUE(testing::WriteSmallStore(store_ + "2", 2).ok());
  fs::copy_file(store_ + "2/manifest.json", File(kManifestFile),
                fs::copy_options::overwrite_existing);
  EXPECT_TRUE(Store::Open(store_).ok());  // the sizes are the same
  EXPECT_EQ(Verify().code(), Code::kCorrupt);
  fs::resize_file(File(kManifestFile), 100);
  EXPECT_EQ(Store::Open(store_).status().code(), Code::kCorrupt);
}

TEST_F(StoreTest, ForbiddenValuesAreFoundBehindGoodDigests) {
  // A provider's tool of another make could digest what the format forbids.
  for (const float bad :
       {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::nanf(""), 1e-40f}) {
    Write();
    const StoreLayout layout = LayoutOf(manifest_);
    Put(kScalesFile, layout.scales[2], &bad, sizeof(bad));
    const Status status = Verify();
    EXPECT_EQ(status.code(), Code::kCorrupt);
    EXPECT_THAT(status.message(), HasSubstr("out of range"));
    fs::remove_all(store_);
  }
  Write();
  const int8_t minimum = -128;
  Put(kWeightsFile, LayoutOf(manifest_).weights[0] + 3, &minimum, 1);
  EXPECT_THAT(Verify().message(), HasSubstr("out of range"));
}

TEST_F(StoreTest, WriterRefusesBadTargets) {
  Write();
  const Status exists = StoreWriter::Create(store_, manifest_).status();
  EXPECT_EQ(exists.code(), Code::kInvalidArgument);
  EXPECT_THAT(exists.message(), HasSubstr("exists"));
  EXPECT_EQ(StoreWriter::Create(folder_ + "/no/store", manifest_).status().code(), Code::kNotFound);
  Manifest empty = manifest_;
  empty.groups.clear();
  EXPECT_EQ(StoreWriter::Create(folder_ + "/other", empty).status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(Partials().empty());
}

TEST_F(StoreTest, AbandonedWriterLeavesNothing) {
  Write();
  {
    auto writer = StoreWriter::Create(folder_ + "/other/", manifest_);
    ASSERT_TRUE(writer.ok());
    EXPECT_EQ(Partials().size(), 1u);
  }
  EXPECT_TRUE(Partials().empty());
  EXPECT_FALSE(fs::exists(folder_ + "/other"));
}

TEST_F(StoreTest, LeftOversOfDeadWritersAreRemovedAndLivingOnesAreNot) {
  Write();
  const std::string target = folder_ + "/other";
  // A dead writer of the same target: nobody holds its lock.
  fs::create_directory(target + ".partial-1");
  std::ofstream(target + ".partial-1/hints.bin") << "half";
  // Another target, another kind of name, somebody's files.
  fs::create_directory(folder_ + "/another.partial-1");
  fs::create_directory(target + ".partial-x");
  // A living writer.
  auto living = StoreWriter::Create(target, manifest_);
  ASSERT_TRUE(living.ok());
  EXPECT_EQ(living->removed(), std::vector<std::string>{target + ".partial-1"});
  EXPECT_FALSE(fs::exists(target + ".partial-1"));
  const std::string living_folder = target + ".partial-" + std::to_string(getpid());
  const pid_t child = fork();
  if (child == 0) {
    auto second = StoreWriter::Create(target, manifest_);
    _exit(second.ok() && second->removed().empty() && fs::exists(living_folder) ? 0 : 1);
  }
  int state = 0;
  waitpid(child, &state, 0);
  EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0);
  EXPECT_TRUE(fs::exists(living_folder));
  EXPECT_TRUE(fs::exists(target + ".partial-x"));
  EXPECT_TRUE(fs::exists(folder_ + "/another.partial-1"));
  // The child died without its destructor: its folder is a left-over now.
  auto third = StoreWriter::Create(folder_ + "/third", manifest_);
  ASSERT_TRUE(third.ok());
}

TEST_F(StoreTest, FullDiskIsSaidAndLeavesNothing) {
  Write();
  const pid_t child = fork();
  if (child == 0) {
    // A limit on the size of files stands for a full disk: both fail the reservation or the write.
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    const auto writer = StoreWriter::Create(folder_ + "/other", manifest_);
    _exit(!writer.ok() && writer.status().code() == Code::kResourceExhausted && Partials().empty()
              ? 0
              : 1);
  }
  int state = 0;
  waitpid(child, &state, 0);
  EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0);
}

TEST_F(StoreTest, TargetThatAppearsMeanwhileIsNotOverwritten) {
  auto writer = StoreWriter::Create(store_, *master_manifest_);
  ASSERT_TRUE(writer.ok());
  fs::create_directory(store_);
  EXPECT_FALSE(writer->Finish(*master_manifest_).ok());
  EXPECT_TRUE(fs::is_empty(store_));
}

}  // namespace
}  // namespace talaria::model
