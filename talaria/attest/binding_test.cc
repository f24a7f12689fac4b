#include "talaria/attest/binding.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

namespace talaria::attest {
namespace {

template <size_t N = 32>
std::array<uint8_t, N> Filled(uint8_t value) {
  std::array<uint8_t, N> out;
  out.fill(value);
  return out;
}

Binding Example() {
  return {.role = Role::kServerToClient,
          .type = EvidenceType::kSevSnp,
          .nonce = Filled(0x11),
          .exporter = Filled(0x22),
          .cvm_key = Filled(0x33),
          .peer_key = Filled(0x44),
          .context = Filled(0x55)};
}

// python3 -c 'import hashlib,struct; print(hashlib.sha512(b"".join(struct.pack("<I",len(x))+x for x
// in [b"talaria-ra-v1",b"\1",b"\1",b"\x11"*32,b"\x22"*32,b"\x33"*32,b"\x44"*32,b"\x55"*32]))
// .hexdigest())'
TEST(Binding, GoldenBytes) {
  EXPECT_EQ(ToHex(ReportDataFor(Example())),
            "32857bb518aa32b1a83a0ee416ca4ea404e66a90f60207390578a765612c7e2d"
            "cb78f8a25c24632cc3a01ce6d9274ebb3f9082f74a7fe2a5768d224793676d15");
}

TEST(Binding, EveryByteOfEveryFieldChangesAllOfIt) {
  std::set<ReportData> seen = {ReportDataFor(Example())};
  size_t made = 1;
  const auto add = [&](const std::function<void(Binding&)>& change) {
    Binding binding = Example();
    change(binding);
    seen.insert(ReportDataFor(binding));
    ++made;
  };
  add([](Binding& b) { b.role = Role::kClientToCloud; });
  add([](Binding& b) { b.type = EvidenceType::kTdx; });
  add([](Binding& b) { b.type = EvidenceType::kSimulated; });
  for (size_t i = 0; i < 32; ++i) {
    add([i](Binding& b) { b.nonce[i] ^= 1; });
    add([i](Binding& b) { b.exporter[i] ^= 1; });
    add([i](Binding& b) { b.cvm_key[i] ^= 1; });
    add([i](Binding& b) { b.peer_key[i] ^= 1; });
    add([i](Binding& b) { b.context[i] ^= 1; });
  }
  EXPECT_EQ(made, 1u + 3 + 5 * 32);
  EXPECT_EQ(seen.size(), made);
}

// Fields of equal size that change places are told apart.
TEST(Binding, FieldsKeepTheirPlaces) {
  Binding swapped = Example();
  std::swap(swapped.cvm_key, swapped.peer_key);
  EXPECT_NE(ReportDataFor(swapped), ReportDataFor(Example()));
  swapped = Example();
  std::swap(swapped.nonce, swapped.exporter);
  EXPECT_NE(ReportDataFor(swapped), ReportDataFor(Example()));
}

// The same bytes without their lengths, or with the lengths in the other byte order, are something
// else (the same one-liner without struct.pack, and with ">I").
TEST(Binding, EveryFieldIsPrecededByItsLength) {
  const std::string made = ToHex(ReportDataFor(Example()));
  EXPECT_NE(made.substr(0, 32), "bebb7aeed43c6431047a89a9eff84bad");
  EXPECT_NE(made.substr(0, 32), "ceb119c671eafdf0d984453b742df185");
}

TEST(Binding, ATokenUserHasTheZeroKey) {
  Binding token = Example();
  token.peer_key = Digest{};
  EXPECT_EQ(ToHex(ReportDataFor(token)).substr(0, 32), "7fb11500a7f10dbf3aa23596fb4fe37f");
}

TEST(Binding, ExporterLabelIsTheDocumentedOne) {
  EXPECT_EQ(kExporterLabel, "EXPERIMENTAL-talaria-attest-v1");
  EXPECT_EQ(kExporterBytes, 32u);
}

}  // namespace
}  // namespace talaria::attest
