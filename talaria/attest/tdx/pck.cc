#include "talaria/attest/tdx/pck.h"

#include <algorithm>
#include <optional>
#include <string>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

enum Tag : uint8_t {
  kBoolean = 0x01,
  kInteger = 0x02,
  kOctetString = 0x04,
  kOid = 0x06,
  kEnumerated = 0x0a,
  kSequence = 0x30,
};

// 1.2.840.113741.1.13.1, as the content of an OID; the arcs below it are one byte each.
constexpr std::array<uint8_t, 9> kSgxArc = {0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01};

// Reads DER elements one after the other. After the first failure every read is empty and ok()
// stays false. It never recurses: the caller opens what is inside an element.
class DerReader {
 public:
  explicit DerReader(Bytes data) : data_(data) {}

  // The content of the next element, which must have this tag.
  Bytes Next(Tag tag) {
    const uint8_t found = data_.U8();
    size_t size = data_.U8();
    if (size == 0x81) {
      size = data_.U8();
      good_ &= size >= 0x80;
    } else if (size == 0x82) {
      const size_t high = data_.U8();
      size = high << 8 | data_.U8();
      good_ &= size >= 0x100;
    } else {
      good_ &= size < 0x80;  // nothing here is larger than 65,535 bytes, or of indefinite length
    }
    good_ &= found == tag;
    if (!good_) return {};
    return data_.Raw(size);
  }
  // The content of an OCTET STRING of exactly N bytes.
  template <size_t N>
  std::array<uint8_t, N> Octets() {
    std::array<uint8_t, N> out{};
    const Bytes content = Next(kOctetString);
    if (content.size() == N) {
      std::copy(content.begin(), content.end(), out.begin());
    } else {
      good_ = false;
    }
    return out;
  }
  // Not negative, at most `max` (up to 65,535), in its shortest form.
  uint16_t Unsigned(Tag tag, uint32_t max) {
    Bytes content = Next(tag);
    const bool padded = content.size() > 1 && content[0] == 0;
    good_ &= !content.empty() && content[0] < 0x80 && !(padded && content[1] < 0x80);
    if (padded) content = content.subspan(1);
    good_ &= content.size() <= 2;
    uint32_t value = 0;
    if (good_) {
      for (const uint8_t b : content) value = value << 8 | b;
      good_ = value <= max;
    }
    return good_ ? static_cast<uint16_t>(value) : uint16_t{0};
  }
  void Boolean() {
    const Bytes content = Next(kBoolean);
    good_ &= content.size() == 1 && (content[0] == 0 || content[0] == 0xff);
  }
  bool ok() const { return good_ && data_.ok(); }
  bool AtEnd() const { return good_ && data_.AtEnd(); }
  bool HasMore() const { return ok() && !data_.AtEnd(); }

 private:
  ByteReader data_;
  bool good_ = true;
};

Status Bad(std::string_view what) { return Refuse("tdx-pck-extension", what); }

// Which arcs of a level were met; every one may be met once.
class Seen {
 public:
  bool Add(unsigned arc) {
    const bool fresh = (bits_ >> arc & 1) == 0;
    bits_ |= uint32_t{1} << arc;
    return fresh;
  }
  bool HasAll(unsigned first, unsigned last) const {
    for (unsigned arc = first; arc <= last; ++arc) {
      if ((bits_ >> arc & 1) == 0) return false;
    }
    return true;
  }

 private:
  uint32_t bits_ = 0;
};

// Opens the next {OID, value} of `level` and returns a reader that stands before the value. `arc`
// is the last arc of the OID, which must be `above`, then one arc of 1 to `max_arc`.
std::optional<DerReader> NextEntry(DerReader& level, Bytes above, unsigned max_arc, unsigned& arc) {
  DerReader entry(level.Next(kSequence));
  const Bytes oid = entry.Next(kOid);
  if (!level.ok() || !entry.ok() || oid.size() != above.size() + 1 ||
      !std::equal(above.begin(), above.end(), oid.begin())) {
    return std::nullopt;
  }
  arc = oid.back();
  if (arc == 0 || arc > max_arc) return std::nullopt;
  return entry;
}

std::array<uint8_t, 10> ArcBelow(uint8_t arc) {
  std::array<uint8_t, 10> out{};
  std::copy(kSgxArc.begin(), kSgxArc.end(), out.begin());
  out.back() = arc;
  return out;
}

Status ParseTcb(Bytes der, PckExtension& out) {
  const auto above = ArcBelow(2);
  DerReader level(der);
  Seen seen;
  while (level.HasMore()) {
    unsigned arc = 0;
    std::optional<DerReader> entry = NextEntry(level, above, 18, arc);
    if (!entry) return Bad("an element of the TCB that is not known");
    if (!seen.Add(arc)) return Bad("TCB element " + std::to_string(arc) + " twice");
    if (arc <= 16) {
      out.tcb_svns[arc - 1] = static_cast<uint8_t>(entry->Unsigned(kInteger, 0xff));
    } else if (arc == 17) {
      out.pcesvn = entry->Unsigned(kInteger, 0xffff);
    } else {
      out.cpusvn = entry->Octets<16>();
    }
    if (!entry->AtEnd()) return Bad("TCB element " + std::to_string(arc) + " of a wrong form");
  }
  if (!level.AtEnd()) return Bad("a TCB that is not DER");
  if (!seen.HasAll(1, 18)) return Bad("a TCB that is not complete");
  return OkStatus();
}

Status ParseConfiguration(Bytes der) {
  const auto above = ArcBelow(7);
  DerReader level(der);
  Seen seen;
  while (level.HasMore()) {
    unsigned arc = 0;
    std::optional<DerReader> entry = NextEntry(level, above, 3, arc);
    if (!entry || !seen.Add(arc)) return Bad("a configuration element, unknown or twice");
    entry->Boolean();
    if (!entry->AtEnd()) return Bad("a configuration element of a wrong form");
  }
  return level.AtEnd() ? OkStatus() : Bad("a configuration that is not DER");
}

}  // namespace

Result<PckExtension> ParsePckExtension(Bytes der) {
  DerReader outer(der);
  DerReader level(outer.Next(kSequence));
  if (!outer.AtEnd()) return Bad("what is not exactly one sequence");
  PckExtension out;
  Seen seen;
  while (level.HasMore()) {
    unsigned arc = 0;
    std::optional<DerReader> entry = NextEntry(level, kSgxArc, 7, arc);
    if (!entry) return Bad("an element that is not known");
    if (!seen.Add(arc)) return Bad("element " + std::to_string(arc) + " twice");
    Bytes inside;
    switch (arc) {
      case 1:
        out.ppid = entry->Octets<16>();
        break;
      case 3:
        out.pceid = entry->Octets<2>();
        break;
      case 4:
        out.fmspc = entry->Octets<6>();
        break;
      case 5:
        out.sgx_type = static_cast<uint8_t>(entry->Unsigned(kEnumerated, 2));
        break;
      case 6:
        entry->Octets<16>();
        break;
      default:
        inside = entry->Next(kSequence);
        break;
    }
    if (!entry->AtEnd()) return Bad("element " + std::to_string(arc) + " of a wrong form");
    if (arc == 2) TALARIA_RETURN_IF_ERROR(ParseTcb(inside, out));
    if (arc == 7) TALARIA_RETURN_IF_ERROR(ParseConfiguration(inside));
  }
  if (!level.AtEnd()) return Bad("what is not DER");
  if (!seen.HasAll(1, 5)) return Bad("an extension that is not complete");
  return out;
}

}  // namespace talaria::attest
