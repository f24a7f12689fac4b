#include "talaria/attest/tdx/pck.h"

#include <gtest/gtest.h>

#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

using Buffer = std::vector<uint8_t>;

PckExtension Example() {
  PckExtension extension;
  extension.ppid.fill(0x99);
  for (uint8_t i = 0; i < 16; ++i) extension.tcb_svns[i] = static_cast<uint8_t>(i * 17);
  extension.pcesvn = 0xff80;
  extension.cpusvn.fill(0x77);
  extension.pceid = {1, 2};
  extension.fmspc = {1, 2, 3, 4, 5, 6};
  extension.sgx_type = 2;
  return extension;
}

std::string ReasonOfParse(Bytes der) {
  const Result<PckExtension> parsed = ParsePckExtension(der);
  return parsed.ok() ? "accepted" : std::string(ReasonOf(parsed.status()));
}

// {OID 1.2.840.113741.1.13.1 and `below`, value}.
Buffer Entry(const Buffer& below, const Buffer& value) {
  Buffer oid = {0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01};
  oid.insert(oid.end(), below.begin(), below.end());
  Buffer inside = DerElement(0x06, oid);
  inside.insert(inside.end(), value.begin(), value.end());
  return DerElement(0x30, inside);
}

// `der` with the first occurrence of `from` replaced by bytes of the same number.
Buffer Swapped(Buffer der, const Buffer& from, const Buffer& to) {
  EXPECT_EQ(from.size(), to.size());
  const auto at = std::search(der.begin(), der.end(), from.begin(), from.end());
  EXPECT_NE(at, der.end());
  if (at != der.end()) std::copy(to.begin(), to.end(), at);
  return der;
}

TEST(PckExtension, ReadsWhatIsThere) {
  const Result<PckExtension> parsed = ParsePckExtension(EncodePckExtension(Example()));
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(*parsed, Example());
}

TEST(PckExtension, EveryTruncationAndATrailingByteAreRefused) {
  Buffer der = EncodePckExtension(Example());
  for (size_t size = 0; size < der.size(); ++size) {
    ASSERT_EQ(ReasonOfParse(Bytes(der).first(size)), "tdx-pck-extension") << size;
  }
  der.push_back(0);
  EXPECT_EQ(ReasonOfParse(der), "tdx-pck-extension");
}

// Whatever single byte is off: refused, or another value of the same form.
TEST(PckExtension, EveryByteCounts) {
  const Buffer der = EncodePckExtension(Example());
  int refused = 0;
  for (size_t at = 0; at < der.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Buffer flipped = der;
      flipped[at] = static_cast<uint8_t>(flipped[at] ^ (1 << bit));
      const Result<PckExtension> parsed = ParsePckExtension(flipped);
      if (!parsed.ok()) {
        EXPECT_EQ(ReasonOf(parsed.status()), "tdx-pck-extension");
        ++refused;
      } else {
        // The instance id (.6) is the only part that is read over.
        EXPECT_TRUE(EncodePckExtension(*parsed) == flipped || *parsed == Example()) << at;
      }
    }
  }
  EXPECT_GT(refused, 3000);
}

TEST(PckExtension, EveryElementIsThereOnceAndKnown) {
  // Elements of the outer sequence, taken out of the whole.
  const Buffer der = EncodePckExtension(Example());
  std::vector<Buffer> elements;
  for (size_t at = 4; at < der.size();) {
    size_t size = 2 + size_t{der[at + 1]};
    if (der[at + 1] == 0x82) size = 4 + (size_t{der[at + 2]} << 8 | der[at + 3]);
    elements.emplace_back(der.begin() + static_cast<std::ptrdiff_t>(at),
                          der.begin() + static_cast<std::ptrdiff_t>(at + size));
    at += size;
  }
  ASSERT_EQ(elements.size(), 7u);
  const auto sequence = [](const std::vector<Buffer>& parts) {
    Buffer inside;
    for (const Buffer& part : parts) inside.insert(inside.end(), part.begin(), part.end());
    return DerElement(0x30, inside);
  };
  EXPECT_EQ(sequence(elements), der);
  for (size_t i = 0; i < elements.size(); ++i) {
    std::vector<Buffer> fewer = elements;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_EQ(ReasonOfParse(sequence(fewer)), i < 5 ? "tdx-pck-extension" : "accepted") << i;
    std::vector<Buffer> more = elements;
    more.push_back(elements[i]);
    EXPECT_EQ(ReasonOfParse(sequence(more)), "tdx-pck-extension") << i;
  }
  for (const uint8_t arc : std::initializer_list<uint8_t>{0, 8, 255}) {
    std::vector<Buffer> more = elements;
    more.push_back(Entry({arc}, DerElement(0x04, Buffer(2))));
    EXPECT_EQ(ReasonOfParse(sequence(more)), "tdx-pck-extension");
  }
  EXPECT_EQ(ReasonOfParse(sequence({})), "tdx-pck-extension");
}

TEST(PckExtension, TcbElements) {
  const Buffer der = EncodePckExtension(Example());
  const auto svn = [](uint8_t arc, const Buffer& integer) {
    return Entry({2, arc}, DerElement(0x02, integer));
  };
  // Component 1 named 2 as well: one twice, one missing.
  EXPECT_EQ(ReasonOfParse(Swapped(der, svn(1, {0}), svn(2, {0}))), "tdx-pck-extension");
  // 0xff80 as PCESVN stands as 00 ff 80.
  EXPECT_EQ(ReasonOfParse(Swapped(der, svn(17, {0, 0xff, 0x80}), svn(17, {1, 0xff, 0x80}))),
            "tdx-pck-extension");  // over 16 bits
  EXPECT_EQ(ReasonOfParse(Swapped(der, svn(17, {0, 0xff, 0x80}), svn(17, {0, 0x7f, 0x80}))),
            "tdx-pck-extension");  // not its shortest form
  EXPECT_EQ(ReasonOfParse(Swapped(der, svn(17, {0, 0xff, 0x80}), svn(17, {0xff, 0xff, 0x80}))),
            "tdx-pck-extension");  // negative
  EXPECT_EQ(ReasonOfParse(Swapped(der, svn(16, {0, 255}), svn(16, {1, 0}))),
            "tdx-pck-extension");  // 256 as a component
  EXPECT_EQ(ReasonOfParse(Swapped(der, svn(2, {17}), svn(2, {0x91}))), "tdx-pck-extension");
}

TEST(PckExtension, SgxTypesAreThree) {
  PckExtension extension = Example();
  for (const uint8_t type : std::initializer_list<uint8_t>{0, 1, 2}) {
    extension.sgx_type = type;
    EXPECT_EQ(ReasonOfParse(EncodePckExtension(extension)), "accepted");
  }
  extension.sgx_type = 3;
  EXPECT_EQ(ReasonOfParse(EncodePckExtension(extension)), "tdx-pck-extension");
}

}  // namespace
}  // namespace talaria::attest
