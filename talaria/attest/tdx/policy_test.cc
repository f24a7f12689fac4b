// Which TDs are accepted. Where the other negative cases are: testing.h.
#include "talaria/attest/tdx/policy.h"

#include <gtest/gtest.h>

#include <functional>
#include <type_traits>

#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

static_assert(!std::is_default_constructible_v<TdxPolicy>, "a policy states all its fields");
static_assert(!std::is_default_constructible_v<TdxVerifyOptions>);
static_assert(!std::is_default_constructible_v<VerifiedTdxQuote>);

class TdxPolicyTest : public testing::Test {
 protected:
  using EditPlan = std::function<void(TdxPlan&)>;
  using EditPolicy = std::function<void(TdxPolicy&)>;

  // The TD of an edited plan under the edited policy of the plan as it was.
  Status Check(const EditPlan& edit_plan, const EditPolicy& edit_policy = {}) const {
    TdxPlan plan = plan_;
    if (edit_plan) edit_plan(plan);
    const TdxWorld world = BuildTdxWorld(plan);
    const auto verified =
        VerifyTdxQuote(world.quote, world.collateral, world.root, OptionsOfPlan());
    EXPECT_TRUE(verified.ok()) << verified.status().ToString();
    if (!verified.ok()) return verified.status();
    TdxPolicy policy = PolicyOfPlan(plan_);
    if (edit_policy) edit_policy(policy);
    return CheckTdxPolicy(*verified, policy, plan_.quote.body.report_data);
  }
  std::string Reason(const EditPlan& edit_plan, const EditPolicy& edit_policy = {}) const {
    const Status status = Check(edit_plan, edit_policy);
    return status.ok() ? "accepted" : std::string(ReasonOf(status));
  }
  std::string ReasonWithAttributes(uint64_t attributes, const EditPolicy& edit_policy = {}) const {
    return Reason([attributes](TdxPlan& p) { p.quote.body.td_attributes = attributes; },
                  edit_policy);
  }

  const TdxPlan plan_ = DefaultTdxPlan();
};

constexpr uint64_t kBit(int bit) { return uint64_t{1} << bit; }
constexpr uint64_t kSeptVeDisable = kBit(28);

TEST_F(TdxPolicyTest, ThePlanItselfIsAccepted) { EXPECT_EQ(Reason({}), "accepted"); }

TEST_F(TdxPolicyTest, Case48_DebugIsNeverAccepted) {
  EXPECT_EQ(ReasonWithAttributes(kSeptVeDisable | kBit(0)), "tdx-debug");
  EXPECT_EQ(ReasonWithAttributes(~uint64_t{0}), "tdx-debug");
}

TEST_F(TdxPolicyTest, Case48_Attributes) {
  for (int bit = 1; bit < 64; ++bit) {
    if (bit == 28) continue;
    std::string wanted = "tdx-attributes";
    if (bit == 29) wanted = "tdx-migratable";
    if (bit == 30) wanted = "accepted";  // PKS
    if (bit == 31) wanted = "tdx-key-locker";
    if (bit == 63) wanted = "tdx-perfmon";
    EXPECT_EQ(ReasonWithAttributes(kSeptVeDisable | kBit(bit)), wanted) << bit;
  }
  EXPECT_EQ(ReasonWithAttributes(kSeptVeDisable | kBit(31),
                                 [](TdxPolicy& p) { p.accept_key_locker = true; }),
            "accepted");
  EXPECT_EQ(ReasonWithAttributes(kSeptVeDisable | kBit(63),
                                 [](TdxPolicy& p) { p.accept_perfmon = true; }),
            "accepted");
}

TEST_F(TdxPolicyTest, Case48_SeptVeDisable) {
  EXPECT_EQ(ReasonWithAttributes(0), "tdx-sept-ve");
  EXPECT_EQ(ReasonWithAttributes(kBit(30)), "tdx-sept-ve");
  EXPECT_EQ(ReasonWithAttributes(0, [](TdxPolicy& p) { p.accept_septve_enabled = true; }),
            "accepted");
}

TEST_F(TdxPolicyTest, Case49_ServiceTds) {
  const EditPlan bound = [](TdxPlan& p) { p.quote.body.tdx15->mrservicetd[47] = 1; };
  EXPECT_EQ(Reason(bound), "tdx-mrservicetd");
  TdxMeasurement pinned{};
  pinned[47] = 1;
  const EditPolicy pin = [&pinned](TdxPolicy& p) { p.mrservicetd = {pinned}; };
  EXPECT_EQ(Reason(bound, pin), "accepted");
  EXPECT_EQ(Reason({}, pin), "tdx-mrservicetd");
  // A body of TDX 1.0 does not say which: it counts as none.
  const EditPlan tdx10 = [](TdxPlan& p) { p.quote.body.tdx15.reset(); };
  const EditPolicy no_floor = [](TdxPolicy& p) { p.min_tee_tcb_svn2 = TdxSvns{}; };
  EXPECT_EQ(Reason(tdx10, no_floor), "accepted");
  EXPECT_EQ(Reason(tdx10,
                   [&](TdxPolicy& p) {
                     no_floor(p);
                     pin(p);
                   }),
            "tdx-mrservicetd");
}

struct Pin {
  const char* reason;
  TdxMeasurement& (*found)(TdxPlan&);
  Accepted<TdxMeasurement> TdxPolicy::*accepted;
};
const Pin kPins[] = {
    {"tdx-mrtd", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.mrtd; }, &TdxPolicy::mrtd},
    {"tdx-rtmr0", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.rtmr[0]; },
     &TdxPolicy::rtmr0},
    {"tdx-rtmr1", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.rtmr[1]; },
     &TdxPolicy::rtmr1},
    {"tdx-rtmr2", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.rtmr[2]; },
     &TdxPolicy::rtmr2},
    {"tdx-rtmr3", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.rtmr[3]; },
     &TdxPolicy::rtmr3},
    {"tdx-mrconfigid", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.mrconfigid; },
     &TdxPolicy::mrconfigid},
    {"tdx-mrowner", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.mrowner; },
     &TdxPolicy::mrowner},
    {"tdx-mrownerconfig", [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.mrownerconfig; },
     &TdxPolicy::mrownerconfig},
    {"tdx-mrservicetd",
     [](TdxPlan& p) -> TdxMeasurement& { return p.quote.body.tdx15->mrservicetd; },
     &TdxPolicy::mrservicetd},
};

TEST_F(TdxPolicyTest, Case50_MeasurementsAreComparedToTheirEnd) {
  for (const Pin& pin : kPins) {
    for (const size_t at : {0, 47}) {
      EXPECT_EQ(Reason([&](TdxPlan& p) { pin.found(p)[at] ^= 1; }), pin.reason) << at;
    }
    EXPECT_EQ(Reason({}, [&](TdxPolicy& p) { p.*pin.accepted = {}; }), pin.reason)
        << "an empty list accepts nothing";
    TdxPlan plan = plan_;
    TdxMeasurement other = pin.found(plan);
    other[47] ^= 1;
    EXPECT_EQ(Reason([&](TdxPlan& p) { pin.found(p) = other; },
                     [&](TdxPolicy& p) {
                       p.*pin.accepted = {TdxMeasurement{0x77}, other};
                     }),
              "accepted");
    EXPECT_EQ(Reason([&](TdxPlan& p) { pin.found(p) = other; },
                     [&](TdxPolicy& p) { p.*pin.accepted = Accepted<TdxMeasurement>::Any(); }),
              "accepted");
  }
}

TEST_F(TdxPolicyTest, Case50_SwappedRtmrs) {
  EXPECT_EQ(Reason([](TdxPlan& p) { std::swap(p.quote.body.rtmr[1], p.quote.body.rtmr[2]); }),
            "tdx-rtmr1");
  EXPECT_EQ(Reason([](TdxPlan& p) { std::swap(p.quote.body.rtmr[2], p.quote.body.rtmr[3]); }),
            "tdx-rtmr2");
}

TEST_F(TdxPolicyTest, Case50_ReportDataIsComparedToItsEnd) {
  for (const size_t at : {0, 31, 32, 63}) {
    EXPECT_EQ(Reason([at](TdxPlan& p) { p.quote.body.report_data[at] ^= 1; }), "tdx-report-data")
        << at;
  }
  EXPECT_EQ(Reason([](TdxPlan& p) { p.quote.body.report_data = {}; }), "tdx-report-data");
}

TEST_F(TdxPolicyTest, Case50_Xfam) {
  const auto with_xfam = [this](uint64_t xfam, uint64_t allowed) {
    return Reason([xfam](TdxPlan& p) { p.quote.body.xfam = xfam; },
                  [allowed](TdxPolicy& p) { p.allowed_xfam = allowed; });
  };
  EXPECT_EQ(with_xfam(0x3, 0x3), "accepted");
  EXPECT_EQ(with_xfam(kXfamDefined, kXfamDefined), "accepted");
  for (const uint64_t missing : {0x0, 0x1, 0x2, 0xe4}) {
    EXPECT_EQ(with_xfam(missing, kXfamDefined), "tdx-xfam") << missing;
  }
  EXPECT_EQ(with_xfam(0x7, 0x3), "tdx-xfam");
  // Bits that TDX does not define are refused even where a policy names them.
  for (int bit = 0; bit < 64; ++bit) {
    const bool defined = (kXfamDefined >> bit & 1) != 0;
    EXPECT_EQ(with_xfam(0x3 | kBit(bit), ~uint64_t{0}), defined ? "accepted" : "tdx-xfam") << bit;
  }
}

TEST_F(TdxPolicyTest, SvnFloorsAreByComponent) {
  const auto floors = [](TdxSvns first, TdxSvns second) {
    return [=](TdxPolicy& p) {
      p.min_tee_tcb_svn = first;
      p.min_tee_tcb_svn2 = second;
    };
  };
  EXPECT_EQ(Reason({}, floors({7, 1, 3}, {})), "tdx-tee-tcb-svn");
  EXPECT_EQ(Reason({}, floors({0, 0, 4}, {})), "tdx-tee-tcb-svn");
  EXPECT_EQ(Reason({}, floors({6, 1, 3, 1}, {})), "tdx-tee-tcb-svn");
  EXPECT_EQ(Reason({}, floors({}, {8, 1, 3})), "tdx-tee-tcb-svn2");
  EXPECT_EQ(Reason({}, floors({}, {7, 1, 3})), "accepted");
  // What a body of TDX 1.0 does not say, it does not reach.
  const EditPlan tdx10 = [](TdxPlan& p) { p.quote.body.tdx15.reset(); };
  EXPECT_EQ(Reason(tdx10, floors({}, {1})), "tdx-tee-tcb-svn2");
  EXPECT_EQ(Reason(tdx10, floors({}, {})), "accepted");
}

TEST_F(TdxPolicyTest, Machines) {
  EXPECT_EQ(Reason({}, [](TdxPolicy& p) { p.fmspc = {}; }), "tdx-fmspc-not-accepted");
  EXPECT_EQ(Reason({}, [](TdxPolicy& p) { p.fmspc = {Fmspc{1}}; }), "tdx-fmspc-not-accepted");
  EXPECT_EQ(Reason({}, [](TdxPolicy& p) { p.fmspc = Accepted<Fmspc>::Any(); }), "accepted");
  EXPECT_EQ(Reason({}, [](TdxPolicy& p) { p.ppid = {}; }), "tdx-ppid-not-accepted");
  EXPECT_EQ(Reason([](TdxPlan& p) { p.platform.ppid[15] ^= 1; }), "tdx-ppid-not-accepted");
  EXPECT_EQ(Reason([](TdxPlan& p) { p.platform.ppid[15] ^= 1; },
                   [](TdxPolicy& p) { p.ppid = Accepted<Ppid>::Any(); }),
            "accepted");
}

TEST_F(TdxPolicyTest, RefusalsNameWhatWasFoundAndWanted) {
  const Status xfam = Check([](TdxPlan& p) { p.quote.body.xfam = 1; });
  EXPECT_EQ(xfam.message(),
            "tdx-xfam: found 0x0000000000000001, wanted 3, and no bit outside 0x00000000000602e7");
  const Status ppid = Check({}, [](TdxPolicy& p) { p.ppid = {Ppid{1}, Ppid{2}, Ppid{3}}; });
  EXPECT_EQ(ppid.message(),
            "tdx-ppid-not-accepted: found 50505050505050505050505050505050, wanted "
            "01000000000000000000000000000000 or one of 2 others");
  const Status none = Check({}, [](TdxPolicy& p) { p.fmspc = {}; });
  EXPECT_EQ(none.message(),
            "tdx-fmspc-not-accepted: found b0c06f000000, wanted none: the list is empty");
}

}  // namespace
}  // namespace talaria::attest
