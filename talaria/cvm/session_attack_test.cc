// A cloud that lies about a product. Whatever it does, the session ends: one code, nothing
// unmasked, nothing more on the wire, all secrets wiped.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <thread>

#include "talaria/cvm/testing/rig.h"
#include "talaria/ring/modq.h"

namespace talaria::cvm {
namespace {

using namespace testing;
using ring::kQ;
using ring::LoadResidue;
using ring::StoreResidue;
using wire::Type;

constexpr uint32_t kGroup = 0;  // three members, d = 128
constexpr uint32_t kRows = 3;
constexpr size_t kOutputs = 96 + 64 + 64;  // o_padded

struct Lie {
  std::string name;
  // Of the second product; `earlier` is the first one, for the same group and other rows.
  std::function<void(const Request& request, Reply& reply, const std::vector<uint8_t>& earlier)>
      tell;
};

void PrintTo(const Lie& lie, std::ostream* out) { *out << lie.name; }

void SetLength(Reply& reply, uint32_t length) { std::memcpy(reply.frame.data(), &length, 4); }
void FitLength(Reply& reply) { SetLength(reply, static_cast<uint32_t>(reply.frame.size() - 4)); }
void AddTo(uint8_t* residue, uint64_t amount) {
  StoreResidue(residue, ring::AddMod(LoadResidue(residue), amount));
}

std::vector<Lie> Lies() {
  std::vector<Lie> lies;
  std::mt19937_64 random(3);
  for (int i = 0; i < 12; ++i) {
    const size_t index = random() % (kRows * kOutputs), bit = random() % 48;
    lies.push_back({"bit " + std::to_string(bit) + " of residue " + std::to_string(index),
                    [=](const Request&, Reply& r, const auto&) {
                      r.residue(index)[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
                    }});
  }
  // One more, one less, a multiple of any Delta: what an attack on the rounding would try.
  lies.push_back({"plus one in the last row", [](const Request&, Reply& r, const auto&) {
                    AddTo(r.residue(2 * kOutputs + 5), 1);
                  }});
  lies.push_back({"minus one in the first residue",
                  [](const Request&, Reply& r, const auto&) { AddTo(r.residue(0), kQ - 1); }});
  lies.push_back({"plus 2^30", [](const Request&, Reply& r, const auto&) {
                    AddTo(r.residue(kOutputs + 100), 1u << 30);
                  }});
  lies.push_back({"two errors that cancel in a sum", [](const Request&, Reply& r, const auto&) {
                    AddTo(r.residue(10), 12345);
                    AddTo(r.residue(11), kQ - 12345);
                  }});
  lies.push_back({"padding is not zero", [](const Request&, Reply& r, const auto&) {
                    StoreResidue(r.residue(96 + 40), 1);
                  }});
  lies.push_back({"all zeros", [](const Request&, Reply& r, const auto&) {
                    std::memset(r.residue(0), 0, 6 * kRows * kOutputs);
                  }});
  lies.push_back(
      {"not canonical: zero as q in the padding",
       [](const Request&, Reply& r, const auto&) { StoreResidue(r.residue(96 + 40), kQ); }});
  lies.push_back({"not canonical: a small value plus q", [](const Request&, Reply& r, const auto&) {
                    StoreResidue(r.residue(2 * kOutputs + 96 + 63),
                                 kQ);  // padding, which is zero, in the last row
                  }});
  lies.push_back({"not canonical: 2^48 - 1", [](const Request&, Reply& r, const auto&) {
                    StoreResidue(r.residue(7), (uint64_t{1} << 48) - 1);
                  }});
  lies.push_back({"rows swapped", [](const Request&, Reply& r, const auto&) {
                    std::swap_ranges(r.residue(0), r.residue(kOutputs), r.residue(kOutputs));
                  }});
  lies.push_back({"columns swapped", [](const Request&, Reply& r, const auto&) {
                    std::swap_ranges(r.residue(3), r.residue(4), r.residue(4));
                  }});
  lies.push_back({"members swapped", [](const Request&, Reply& r, const auto&) {
                    std::swap_ranges(r.residue(96), r.residue(160), r.residue(160));
                  }});
  lies.push_back({"one row for all", [](const Request&, Reply& r, const auto&) {
                    std::memcpy(r.residue(kOutputs), r.residue(0), 6 * kOutputs);
                    std::memcpy(r.residue(2 * kOutputs), r.residue(0), 6 * kOutputs);
                  }});
  lies.push_back({"earlier reply, as it was",
                  [](const Request&, Reply& r, const auto& earlier) { r.frame = earlier; }});
  lies.push_back(
      {"earlier residues under this call", [](const Request&, Reply& r, const auto& earlier) {
         std::memcpy(r.residue(0), earlier.data() + (r.residue(0) - r.frame.data()),
                     6 * kRows * kOutputs);
       }});
  const auto field = [](size_t offset, uint8_t change) {
    return [=](const Request&, Reply& r, const auto&) { r.body()[offset] ^= change; };
  };
  lies.push_back({"another call", field(0, 1)});
  lies.push_back({"another call, high byte", field(7, 0x80)});
  lies.push_back({"another group of the same width", field(8, 2)});
  lies.push_back({"a group that is not there", field(11, 0x40)});
  lies.push_back({"fewer rows than sent", [](const Request&, Reply& r, const auto&) {
                    r.body()[12] = kRows - 1;
                    r.frame.resize(r.frame.size() - 6 * kOutputs);
                    FitLength(r);
                  }});
  lies.push_back({"row count that does not fit the size", field(12, 7)});
  lies.push_back({"rows = 0", [](const Request&, Reply& r, const auto&) { r.body()[12] = 0; }});
  lies.push_back({"one byte short",
                  [](const Request&, Reply& r, const auto&) { r.frame.pop_back(), FitLength(r); }});
  lies.push_back({"one byte long", [](const Request&, Reply& r, const auto&) {
                    r.frame.push_back(0), FitLength(r);
                  }});
  lies.push_back({"one row long", [](const Request&, Reply& r, const auto&) {
                    r.frame.resize(r.frame.size() + 6 * kOutputs), FitLength(r);
                  }});
  lies.push_back({"header only", [](const Request&, Reply& r, const auto&) {
                    r.frame.resize(5 + wire::kCallHeaderBytes), FitLength(r);
                  }});
  lies.push_back({"half a header", [](const Request&, Reply& r, const auto&) {
                    r.frame.resize(5 + 7), FitLength(r);
                  }});
  lies.push_back({"empty body",
                  [](const Request&, Reply& r, const auto&) { r.frame.resize(5), FitLength(r); }});
  lies.push_back({"length 0", [](const Request&, Reply& r, const auto&) { r.frame.assign(5, 0); }});
  lies.push_back({"length over the limit", [](const Request&, Reply& r, const auto&) {
                    SetLength(r, wire::kMaxFrameBytes + 1);
                  }});
  lies.push_back(
      {"length 2^32 - 1", [](const Request&, Reply& r, const auto&) { SetLength(r, ~0u); }});
  for (const int type : {0, 11, 128, 255}) {
    lies.push_back(
        {"unknown type " + std::to_string(type),
         [=](const Request&, Reply& r, const auto&) { r.frame[4] = static_cast<uint8_t>(type); }});
  }
  for (const Type type : {Type::kHello, Type::kHelloReply, Type::kFetch, Type::kChunk,
                          Type::kMultiply, Type::kPing, Type::kPong}) {
    lies.push_back(
        {"wrong type " + std::to_string(static_cast<int>(type)),
         [=](const Request&, Reply& r, const auto&) { r.frame[4] = static_cast<uint8_t>(type); }});
  }
  lies.push_back({"Drain with a body", [](const Request&, Reply& r, const auto&) {
                    r.frame = FakeCloud::Frame(Type::kDrain, Bytes(r.frame).first(3));
                  }});
  lies.push_back({"Error with a long body", [](const Request&, Reply& r, const auto&) {
                    r.frame = FakeCloud::Frame(Type::kError, Bytes(r.frame).first(9));
                  }});
  lies.push_back({"Error of no known code", [](const Request&, Reply& r, const auto&) {
                    const uint8_t code[2] = {0xff, 0xff};
                    r.frame = FakeCloud::Frame(Type::kError, code);
                  }});
  return lies;
}

class LyingCloudTest : public ::testing::TestWithParam<Lie> {};

TEST_P(LyingCloudTest, EndsTheSessionForGood) {
  Rig rig;
  std::vector<uint8_t> earlier;
  rig.cloud.SetHook([&](const Request& request, Reply& reply) {
    if (request.type != Type::kMultiply) return;
    if (request.number == 0) {
      earlier = reply.frame;
    } else {
      GetParam().tell(request, reply, earlier);
    }
  });
  const std::vector<float> x = RandomRows(21, kRows, 128), other = RandomRows(22, kRows, 128);
  Outputs first(rig.masked.groups[kGroup], kRows), out(rig.masked.groups[kGroup], kRows);
  ASSERT_TRUE(Multiply(*rig.session, kGroup, kRows, x, first).ok());

  const auto result = Multiply(*rig.session, kGroup, kRows, other, out);
  EXPECT_EQ(result.status().code(), Code::kSessionEnded);
  EXPECT_EQ(result.status().message(), "the session has ended");
  EXPECT_TRUE(out.Untouched());
  EXPECT_TRUE(rig.session->poisoned());
  EXPECT_EQ(rig.cloud.CountRequests(Type::kMultiply), 2u);

  // For good: every group, nothing sent, not even a connection, and no mask to send.
  const uint64_t bytes = rig.cloud.bytes_received(), connections = rig.cloud.connections();
  rig.cloud.SetHook(nullptr);
  for (uint32_t group = 0; group < rig.masked.groups.size(); ++group) {
    const std::vector<float> again = RandomRows(23, 1, rig.masked.groups[group].d);
    Outputs none(rig.masked.groups[group], 1);
    const auto later = Multiply(*rig.session, group, 1, again, none);
    EXPECT_EQ(later.status().code(), Code::kSessionEnded);
    EXPECT_EQ(later.status().message(), result.status().message());
    EXPECT_TRUE(none.Untouched());
    std::vector<RowTicket> tickets;
    EXPECT_EQ(rig.source->Draw(group, 1, tickets).code(), Code::kSessionEnded);
  }
  EXPECT_EQ(rig.link->Identity().status().code(), Code::kSessionEnded);
  EXPECT_EQ(rig.cloud.bytes_received(), bytes);
  EXPECT_EQ(rig.cloud.connections(), connections);
  for (const MaskedGroup& group : rig.masked.groups) {
    EXPECT_TRUE(IsZero(group.u));
    EXPECT_TRUE(IsZero(group.v));
    for (const SecretMemory& hints : group.hints) EXPECT_TRUE(IsZero(hints));
  }
  const MaskStats stats = rig.source->stats();
  EXPECT_EQ(stats.rows_drawn, 2 * kRows);
  EXPECT_EQ(stats.rows_spent, 2 * kRows);
  EXPECT_EQ(stats.rows_ready, 0u);
}

INSTANTIATE_TEST_SUITE_P(Lies, LyingCloudTest, ::testing::ValuesIn(Lies()), [](const auto& lie) {
  std::string name;
  for (const char c : lie.param.name)
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return std::to_string(lie.index) + "_" + name;
});

// The right residue plus q fits into 48 bits only for values below 16383. The padding's zeros
// always do.
TEST(LyingCloudTest, EveryRowAndMemberIsChecked) {
  for (size_t row = 0; row < kRows; ++row) {
    for (const size_t column :
         {size_t{0}, size_t{95}, size_t{96}, size_t{135}, size_t{160}, size_t{192}, kOutputs - 1}) {
      Rig rig;
      rig.cloud.SetHook([&](const Request& request, Reply& reply) {
        if (request.type == Type::kMultiply)
          AddTo(reply.residue(row * kOutputs + column), uint64_t{1} << 40);
      });
      const std::vector<float> x = RandomRows(24, kRows, 128);
      Outputs out(rig.masked.groups[kGroup], kRows);
      EXPECT_EQ(Multiply(*rig.session, kGroup, kRows, x, out).status().code(), Code::kSessionEnded)
          << row << " " << column;
      EXPECT_TRUE(out.Untouched());
    }
  }
}

// A second reply to one request is what the next call finds, and it names the wrong call.
TEST(LyingCloudTest, TwoRepliesEndTheNextCall) {
  Rig rig;
  rig.cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == Type::kMultiply) {
      const std::vector<uint8_t> copy = reply.frame;
      reply.frame.insert(reply.frame.end(), copy.begin(), copy.end());
    }
  });
  const std::vector<float> x = RandomRows(25, 1, 128);
  Outputs first(rig.masked.groups[kGroup], 1), out(rig.masked.groups[kGroup], 1);
  EXPECT_TRUE(Multiply(*rig.session, kGroup, 1, x, first).ok());
  EXPECT_EQ(first.values, ExactProduct(rig.model, rig.masked, kGroup, 1, x));
  EXPECT_EQ(Multiply(*rig.session, kGroup, 1, x, out).status().code(), Code::kSessionEnded);
  EXPECT_TRUE(out.Untouched());
}

// A reply that comes late, to a request that was given up, lies in a connection that nobody reads
// any more.
TEST(LyingCloudTest, AReplyAfterTheTimeOutIsNeverRead) {
  Rig rig;
  rig.cloud.SetHook([&](const Request& request, Reply& reply) {
    if (request.type != Type::kMultiply || request.number != 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(kIdleTimeoutMs + 300));
    reply.residue(0)[0] ^= 1;  // and wrong: read, it would end the session
  });
  const std::vector<float> x = RandomRows(26, 1, 128);
  Outputs out(rig.masked.groups[kGroup], 1);
  ASSERT_TRUE(Multiply(*rig.session, kGroup, 1, x, out).ok());
  EXPECT_EQ(out.values, ExactProduct(rig.model, rig.masked, kGroup, 1, x));
}

// The lie is in the second piece: the first one was checked and unmasked, the call as a whole
// fails.
TEST(LyingCloudTest, APieceOfALargeCall) {
  Rig rig({.max_rows_per_message = 2});
  rig.cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == Type::kMultiply && request.number == 1) AddTo(reply.residue(0), 1);
  });
  const std::vector<float> x = RandomRows(27, 5, 128);
  Outputs out(rig.masked.groups[kGroup], 5);
  EXPECT_EQ(Multiply(*rig.session, kGroup, 5, x, out).status().code(), Code::kSessionEnded);
  EXPECT_EQ(rig.cloud.CountRequests(Type::kMultiply), 2u);
  const auto exact = ExactProduct(rig.model, rig.masked, kGroup, 5, x);
  for (size_t m = 0; m < exact.size(); ++m) {
    const size_t o = exact[m].size() / 5;
    for (size_t i = 0; i < out.values[m].size(); ++i) {
      EXPECT_EQ(out.values[m][i], i < 2 * o ? exact[m][i] : Outputs::kUntouched);
    }
  }
}

// Another model behind the same address, after set-up.
TEST(LyingCloudTest, AnotherIdentityOnAReconnect) {
  Rig rig;
  const std::vector<float> x = RandomRows(28, 1, 128);
  Outputs out(rig.masked.groups[kGroup], 1);
  ASSERT_TRUE(Multiply(*rig.session, kGroup, 1, x, out).ok());
  rig.cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == Type::kHello) reply.body()[2 + 31] ^= 1;
  });
  rig.cloud.Stop();
  rig.cloud.Start();
  Outputs none(rig.masked.groups[kGroup], 1);
  EXPECT_EQ(Multiply(*rig.session, kGroup, 1, x, none).status().code(), Code::kSessionEnded);
  EXPECT_TRUE(none.Untouched());
}

}  // namespace
}  // namespace talaria::cvm
