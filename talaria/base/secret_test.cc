#include "talaria/base/secret.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>
#include <type_traits>

namespace talaria {
namespace {

// What must not compile, seen as traits: a secret cannot be copied, compared or printed.
template <class T>
concept Printable = requires(std::ostream& out, const T& t) {
  out << t;
};
template <class T>
concept Comparable = requires(const T& a, const T& b) {
  a == b;
};
static_assert(!std::is_copy_constructible_v<SecretKey<32>> &&
              !std::is_copy_assignable_v<SecretKey<32>>);
static_assert(!std::is_copy_constructible_v<SecretMemory> &&
              !std::is_copy_assignable_v<SecretMemory>);
static_assert(!Printable<SecretKey<32>> && !Printable<SecretMemory>);
static_assert(!Comparable<SecretKey<32>> && !Comparable<SecretMemory>);

TEST(SecretKey, MovingWipesTheSource) {
  SecretKey<32> a;
  a.Expose()[0] = 9;
  SecretKey<32> b = std::move(a);
  EXPECT_EQ(b.Expose()[0], 9);
  EXPECT_EQ(a.Expose()[0], 0);  // NOLINT: the wiping is what is tested
}

TEST(SecretKey, DyingWipes) {
  alignas(SecretKey<32>) unsigned char room[sizeof(SecretKey<32>)];
  auto* key = new (room) SecretKey<32>;
  for (auto& b : key->Expose()) b = 0xaa;
  key->~SecretKey();
  for (unsigned char b : room) EXPECT_EQ(b, 0);
}

TEST(SecretMemory, IsZeroedAlignedAndCleared) {
  auto memory = SecretMemory::Create(10000, LockPolicy::kWarnIfImpossible);
  ASSERT_TRUE(memory.ok()) << memory.status().ToString();
  auto bytes = memory->Expose();
  EXPECT_EQ(bytes.size(), 10000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 4096, 0u);
  for (uint8_t b : bytes) ASSERT_EQ(b, 0);
  bytes[77] = 1;
  memory->Clear();
  EXPECT_EQ(bytes[77], 0);
}

TEST(SecretMemory, AForkedChildSeesZeros) {
  auto memory = SecretMemory::Create(4096, LockPolicy::kWarnIfImpossible);
  ASSERT_TRUE(memory.ok());
  memory->Expose()[5] = 42;
  const pid_t pid = fork();
  if (pid == 0) _exit(memory->Expose()[5]);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(memory->Expose()[5], 42);
}

TEST(ConstantTimeEqual, ComparesAllBytes) {
  const uint8_t a[] = {1, 2, 3}, b[] = {1, 2, 4};
  EXPECT_TRUE(ConstantTimeEqual(a, a, 3));
  EXPECT_TRUE(ConstantTimeEqual(a, b, 2));
  EXPECT_FALSE(ConstantTimeEqual(a, b, 3));
}

}  // namespace
}  // namespace talaria
