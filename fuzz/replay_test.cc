// Runs the corpora, and small mutations of them, through the fuzz targets in every build. A crash
// that a fuzzer found goes into its corpus as a file and stays there.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "fuzz/seeds.h"
#include "fuzz/targets.h"
#include "talaria/base/file.h"

namespace talaria::fuzz {
namespace {

namespace fs = std::filesystem;
using Buffer = std::vector<uint8_t>;

std::map<std::string, Buffer> Corpus() {
  std::map<std::string, Buffer> out;
  for (const Target& target : kTargets) {
    for (const auto& entry : fs::directory_iterator(fs::path(TALARIA_FUZZ_CORPUS) / target.name)) {
      auto data = ReadFile(entry.path().string(), 1 << 16);
      EXPECT_TRUE(data.ok()) << data.status().ToString();
      if (data.ok())
        out[std::string(target.name) + "/" + entry.path().filename().string()] =
            std::move(data).value();
    }
  }
  return out;
}

const Target& TargetOf(const std::string& name) {
  for (const Target& target : kTargets) {
    if (name.starts_with(std::string(target.name) + "/")) return target;
  }
  std::abort();
}

// With TALARIA_WRITE_CORPUS=1 it writes the seeds instead.
TEST(ReplayTest, TheSeedsAreWhatTheEncodersWrite) {
  if (std::getenv("TALARIA_WRITE_CORPUS") != nullptr) {
    for (const auto& [name, bytes] : Seeds()) {
      const fs::path path = fs::path(TALARIA_FUZZ_CORPUS) / name;
      fs::create_directories(path.parent_path());
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    }
  }
  const std::map<std::string, Buffer> corpus = Corpus();
  for (const auto& [name, bytes] : Seeds()) {
    ASSERT_TRUE(corpus.contains(name))
        << name << " is missing: run this test with TALARIA_WRITE_CORPUS=1";
    EXPECT_EQ(corpus.at(name), bytes)
        << name << " is out of date: run this test with TALARIA_WRITE_CORPUS=1";
  }
}

TEST(ReplayTest, EveryTargetHasACorpus) {
  const std::map<std::string, Buffer> corpus = Corpus();
  for (const Target& target : kTargets) {
    const auto first = corpus.lower_bound(std::string(target.name) + "/");
    ASSERT_NE(first, corpus.end());
    EXPECT_TRUE(first->first.starts_with(std::string(target.name) + "/")) << target.name;
  }
}

TEST(ReplayTest, TheCorpusBreaksNothingAndWhatIsValidIsAccepted) {
  for (const auto& [name, bytes] : Corpus()) {
    SCOPED_TRACE(name);
    const bool accepted = TargetOf(name).run(bytes);
    const std::string_view kind = std::string_view(name).substr(name.find('/') + 1);
    if (kind.starts_with("valid")) {
      EXPECT_TRUE(accepted);
    } else if (kind.starts_with("bad")) {
      EXPECT_FALSE(accepted);
    }
  }
}

TEST(ReplayTest, MutationsOfTheCorpusBreakNothing) {
  std::mt19937_64 random(31);
  for (const auto& [name, bytes] : Corpus()) {
    SCOPED_TRACE(name);
    const Target& target = TargetOf(name);
    for (size_t size = 0; size < bytes.size(); ++size) target.run(Bytes(bytes).first(size));
    for (int i = 0; i < 500; ++i) {
      Buffer mutated = bytes;
      for (uint64_t n = 1 + random() % 4; n > 0; --n) {
        const size_t at = random() % (mutated.size() + 1);
        const auto here = mutated.begin() + static_cast<ptrdiff_t>(at);
        switch (random() % 3) {
          case 0:
            mutated.insert(here, static_cast<uint8_t>(random()));
            break;
          case 1:
            if (at < mutated.size()) mutated.erase(here);
            break;
          default:
            // The values at the edges of integers are where parsers break.
            if (at < mutated.size())
              *here = random() % 2 == 0   ? static_cast<uint8_t>(random())
                      : random() % 2 == 0 ? 0xff
                                          : 0x80;
        }
      }
      target.run(mutated);
    }
  }
}

}  // namespace
}  // namespace talaria::fuzz
