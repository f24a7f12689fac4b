#include "bench/library_product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace talaria::bench {
namespace {

using ::testing::HasSubstr;

// Which of the two holds is decided by the build.
TEST(LibraryProduct, IsRightAndNamedOrSaysThatItIsAbsent) {
  const auto product = PrepareLibraryProduct(128, 96, 5, 1 << 16);
  if (!product.ok()) {
    EXPECT_EQ(product.status().code(), Code::kUnsupported) << product.status().ToString();
    EXPECT_THAT(product.status().message(), HasSubstr("oneDNN not found at build time"));
    return;
  }
  EXPECT_THAT(product->name, HasSubstr("oneDNN "));
  EXPECT_THAT(product->name, HasSubstr(", "));  // and an implementation
  EXPECT_GT(TimeCalls({.runs = 1, .seconds = 0.001}, 1e6, product->call).median, 0);
}

}  // namespace
}  // namespace talaria::bench
