#include "talaria/attest/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

using testing::HasSubstr;

Digest Filled(uint8_t value) {
  Digest out;
  out.fill(value);
  return out;
}

Context Good() {
  return {.version = kAttestationVersion,
          .model_identity = Filled(1),
          .profile = 7,
          .check_vectors = 2,
          .configuration = Filled(2),
          .tenant_key = Filled(3),
          .development = false};
}

ContextPolicy Strict() {
  return {.model_identities = {Filled(0x11), Filled(1)},
          .configurations = {Filled(2)},
          .tenant_keys = {Filled(3)},
          .profiles = std::vector<uint16_t>{6, 7},
          .min_check_vectors = uint8_t{2},
          .allow_development = false};
}

void Refused(const Context& context, const ContextPolicy& policy, const std::string& reason,
             const std::string& found, const std::string& wanted) {
  const Status status = CheckContext(context, policy);
  EXPECT_EQ(ReasonOf(status), reason);
  EXPECT_THAT(status.message(), HasSubstr("found " + found)) << reason;
  EXPECT_THAT(status.message(), HasSubstr("wanted " + wanted)) << reason;
}

TEST(CheckContext, AcceptsWhatIsListed) { EXPECT_TRUE(CheckContext(Good(), Strict()).ok()); }

TEST(CheckContext, RefusesAnotherModel) {
  Context context = Good();
  context.model_identity = Filled(9);
  Refused(context, Strict(), "model-identity", ToHex(Filled(9)),
          ToHex(Filled(0x11)) + " or " + ToHex(Filled(1)));
}

TEST(CheckContext, RefusesAnotherConfiguration) {
  Context context = Good();
  context.configuration = Filled(9);
  Refused(context, Strict(), "configuration", ToHex(Filled(9)), ToHex(Filled(2)));
}

TEST(CheckContext, RefusesAnotherTenant) {
  Context context = Good();
  context.tenant_key = Filled(9);
  Refused(context, Strict(), "tenant-key", ToHex(Filled(9)), ToHex(Filled(3)));
}

TEST(CheckContext, RefusesAnotherProfile) {
  Context context = Good();
  context.profile = 8;
  Refused(context, Strict(), "profile", "8", "6 or 7");
}

TEST(CheckContext, RefusesTooFewCheckVectorsAndAcceptsMore) {
  Context context = Good();
  context.check_vectors = 1;
  Refused(context, Strict(), "check-vectors", "1", "at least 2");
  context.check_vectors = 3;
  EXPECT_TRUE(CheckContext(context, Strict()).ok());
}

TEST(CheckContext, RefusesADevelopmentBuildUnlessAllowed) {
  Context context = Good();
  context.development = true;
  Refused(context, Strict(), "development-build", "a development build", "a release build");
  ContextPolicy policy = Strict();
  policy.allow_development = true;
  EXPECT_TRUE(CheckContext(context, policy).ok());
  EXPECT_TRUE(CheckContext(Good(), policy).ok());
}

TEST(CheckContext, AnyAcceptsAnythingInItsOwnFieldOnly) {
  ContextPolicy policy = Strict();
  policy.configurations = Accepted<Digest>::Any();
  policy.tenant_keys = Accepted<TenantKey>::Any();
  Context context = Good();
  context.configuration = Filled(9);
  context.tenant_key = Filled(9);
  EXPECT_TRUE(CheckContext(context, policy).ok());
  context.model_identity = Filled(9);
  EXPECT_EQ(ReasonOf(CheckContext(context, policy)), "model-identity");
}

TEST(CheckContext, AnEmptyListAcceptsNothing) {
  ContextPolicy policy = Strict();
  policy.model_identities = std::vector<Digest>();
  Refused(Good(), policy, "model-identity", ToHex(Filled(1)), "none: the list is empty");
  policy = Strict();
  policy.profiles = std::vector<uint16_t>();
  Refused(Good(), policy, "profile", "7", "none: the list is empty");
}

TEST(CheckContext, LongListsAreNotPrintedInFull) {
  ContextPolicy policy = Strict();
  policy.profiles = std::vector<uint16_t>{1, 2, 3, 4};
  Refused(Good(), policy, "profile", "7", "1 or 2 or one of 2 more");
}

}  // namespace
}  // namespace talaria::attest
