#include "talaria/cvm/entropy.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

namespace talaria::cvm {
namespace {

using Key = std::array<uint8_t, 32>;

TEST(EntropyTest, KeysDiffer) {
  std::set<Key> keys;
  for (int i = 0; i < 1000; ++i) {
    Key key{};
    ASSERT_TRUE(FreshKey(RdseedPolicy::kUseIfPresent, "test", key).ok());
    keys.insert(key);
  }
  EXPECT_EQ(keys.size(), 1000u);
}

// RDSEED is shared by all cores and runs dry: the retries must cover that.
TEST(EntropyTest, SeveralThreads) {
  std::vector<std::thread> threads;
  std::vector<Key> keys(8 * 200);
  for (size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 200; ++i)
        ASSERT_TRUE(FreshKey(RdseedPolicy::kUseIfPresent, "test", keys[200 * t + i]).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::set<Key>(keys.begin(), keys.end()).size(), keys.size());
}

TEST(EntropyTest, SeedWordsAreTakenWithBoundedRetries) {
  std::array<uint64_t, internal::kRdseedWords> words;
  int calls = 0;
  const auto slow = [&](uint64_t& out) {
    return out = 77u + static_cast<uint64_t>(calls), ++calls % 100 == 0;
  };
  EXPECT_TRUE(internal::ReadSeedWords(slow, words).ok());
  EXPECT_EQ(calls, 400);

  calls = 0;
  const auto dry = [&](uint64_t&) { return ++calls, false; };
  EXPECT_EQ(internal::ReadSeedWords(dry, words).code(), Code::kResourceExhausted);
  EXPECT_EQ(calls, internal::kRdseedTries);
}

TEST(EntropyTest, BrokenProcessorsAreRefused) {
  std::array<uint64_t, internal::kRdseedWords> words;
  for (const uint64_t constant : {uint64_t{0}, ~uint64_t{0}, uint64_t{1234}}) {
    const Status status =
        internal::ReadSeedWords([=](uint64_t& out) { return out = constant, true; }, words);
    EXPECT_EQ(status.code(), Code::kUnsupported) << constant;
  }
  // One bad word among good ones, at each place.
  for (size_t bad = 0; bad < words.size(); ++bad) {
    for (const uint64_t value : {uint64_t{0}, ~uint64_t{0}}) {
      size_t n = 0;
      const auto rdseed = [&](uint64_t& out) {
        return out = n == bad ? value : 1000 + n, ++n, true;
      };
      EXPECT_EQ(internal::ReadSeedWords(rdseed, words).code(), Code::kUnsupported);
    }
  }
  size_t n = 0;
  const auto repeats_later = [&](uint64_t& out) { return out = n++ % 2 == 0 ? 5 : 6 + n, true; };
  EXPECT_EQ(internal::ReadSeedWords(repeats_later, words).code(), Code::kUnsupported);
}

}  // namespace
}  // namespace talaria::cvm
