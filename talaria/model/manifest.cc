#include "talaria/model/manifest.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "talaria/ring/modq.h"
#include "talaria/ring/profile.h"

namespace talaria::model {
namespace {

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

// Reads exactly the text that EncodeManifest writes. Every method fails for good after the first
// failure, so the caller checks once; no method reads past the end.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text), size_(text.size()) {}

  void Expect(std::string_view literal) {
    if (!Accept(literal))
      Fail("expected " +
           Quoted(literal.substr(literal.find_first_not_of(" \n,") == std::string_view::npos
                                     ? 0
                                     : literal.find_first_not_of(" \n,"))));
  }
  // For the choice between one more element and the end of a list.
  bool Accept(std::string_view literal) {
    if (failed() || !rest_.starts_with(literal)) return false;
    rest_.remove_prefix(literal.size());
    return true;
  }
  uint64_t Number(uint64_t max) {
    if (failed()) return 0;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    const size_t digits = static_cast<size_t>(end - rest_.data());
    if (error != std::errc() || value > max || (rest_[0] == '0' && digits > 1))
      return Fail("number out of range"), 0;
    rest_.remove_prefix(digits);
    return value;
  }
  std::string String(size_t max_bytes) {
    std::string out;
    Expect("\"");
    while (!failed()) {
      if (rest_.empty()) break;
      char c = rest_[0];
      if (c == '"') return rest_.remove_prefix(1), out;
      if (c == '\\') {
        if (rest_.size() < 2 || (rest_[1] != '"' && rest_[1] != '\\')) break;
        c = rest_[1];
        rest_.remove_prefix(1);
      }
      if (c < 0x20 || c > 0x7e || out.size() == max_bytes) break;
      out += c;
      rest_.remove_prefix(1);
    }
    Fail("not a string of printable ASCII within its bound");
    return {};
  }
  Digest Sha256Digest() {
    Digest out{};
    Expect("\"");
    if (failed()) return out;
    if (rest_.size() < 64 || !FromHex(rest_.substr(0, 64), out))
      return Fail("not a digest in lower-case hex"), out;
    rest_.remove_prefix(64);
    Expect("\"");
    return out;
  }
  void Fail(std::string_view what) {
    if (error_.empty())
      error_ = "byte " + std::to_string(size_ - rest_.size()) + ": " + std::string(what);
  }
  bool failed() const { return !error_.empty(); }
  bool AtEnd() const { return rest_.empty(); }
  Status status() const { return failed() ? Status(Code::kCorrupt, error_) : OkStatus(); }

 private:
  std::string_view rest_;
  size_t size_;
  std::string error_;
};

Matrix ReadMatrix(Reader& in) {
  Matrix m;
  in.Expect("        {\"name\": ");
  m.name = in.String(kMaxNameBytes);
  in.Expect(", \"role\": ");
  if (in.Accept("\"tied_head\"")) {
    m.role = Role::kTiedHead;
  } else {
    in.Expect("\"linear\"");
  }
  in.Expect(", \"o\": ");
  m.o = static_cast<uint32_t>(in.Number(kMaxOutputs));
  in.Expect(", \"weights\": ");
  m.weights = in.Sha256Digest();
  in.Expect(", \"scales\": ");
  m.scales = in.Sha256Digest();
  in.Expect(", \"hints\": ");
  m.hints = in.Sha256Digest();
  in.Expect("}");
  return m;
}

Group ReadGroup(Reader& in, size_t& matrices) {
  Group g;
  in.Expect("    {\n      \"d\": ");
  g.d = static_cast<uint32_t>(in.Number(kMaxInputs));
  in.Expect(",\n      \"matrices\": [\n");
  do {
    if (++matrices > kMaxMatrices) in.Fail("too many matrices");
    if (in.failed()) return g;
    g.matrices.push_back(ReadMatrix(in));
  } while (in.Accept(",\n"));
  in.Expect("\n      ]\n    }");
  return g;
}

}  // namespace

std::string_view RoleName(Role role) { return role == Role::kTiedHead ? "tied_head" : "linear"; }

std::string EncodeManifest(const Manifest& m) {
  std::string out;
  const auto field = [&out](std::string_view key, std::string_view value) {
    out.append("  \"").append(key).append("\": ").append(value).append(",\n");
  };
  out += "{\n";
  field("format_version", std::to_string(m.format_version));
  field("model_name", Quoted(m.model_name));
  field("tool_version", Quoted(m.tool_version));
  field("source", Quoted(ToHex(m.source)));
  field("profile", std::to_string(m.profile));
  field("skeleton_bytes", std::to_string(m.skeleton_bytes));
  field("skeleton", Quoted(ToHex(m.skeleton)));
  out += "  \"holes\": [";
  for (size_t i = 0; i < m.holes.size(); ++i) {
    out += i == 0 ? "\n" : ",\n";
    out +=
        "    [" + std::to_string(m.holes[i].offset) + ", " + std::to_string(m.holes[i].bytes) + "]";
  }
  out += "\n  ],\n  \"groups\": [\n";
  for (size_t g = 0; g < m.groups.size(); ++g) {
    const Group& group = m.groups[g];
    out += "    {\n      \"d\": " + std::to_string(group.d) + ",\n      \"matrices\": [\n";
    for (size_t i = 0; i < group.matrices.size(); ++i) {
      const Matrix& w = group.matrices[i];
      out.append("        {\"name\": ")
          .append(Quoted(w.name))
          .append(", \"role\": ")
          .append(Quoted(RoleName(w.role)));
      out.append(", \"o\": ")
          .append(std::to_string(w.o))
          .append(", \"weights\": ")
          .append(Quoted(ToHex(w.weights)));
      out.append(", \"scales\": ")
          .append(Quoted(ToHex(w.scales)))
          .append(", \"hints\": ")
          .append(Quoted(ToHex(w.hints)));
      out += i + 1 == group.matrices.size() ? "}\n" : "},\n";
    }
    out += g + 1 == m.groups.size() ? "      ]\n    }\n" : "      ]\n    },\n";
  }
  return out + "  ]\n}\n";
}

Result<Manifest> DecodeManifest(std::string_view text) {
  if (text.size() > kMaxManifestBytes)
    return Status(Code::kCorrupt, "manifest: larger than its bound");
  Manifest m;
  Reader in(text);
  in.Expect("{\n  \"format_version\": ");
  m.format_version = static_cast<uint32_t>(in.Number(UINT32_MAX));
  if (!in.failed() && m.format_version != kFormatVersion) {
    return Status(Code::kUnsupported, "manifest: format version " +
                                          std::to_string(m.format_version) +
                                          ", this program reads " + std::to_string(kFormatVersion));
  }
  in.Expect(",\n  \"model_name\": ");
  m.model_name = in.String(kMaxNameBytes);
  in.Expect(",\n  \"tool_version\": ");
  m.tool_version = in.String(kMaxNameBytes);
  in.Expect(",\n  \"source\": ");
  m.source = in.Sha256Digest();
  in.Expect(",\n  \"profile\": ");
  m.profile = static_cast<uint32_t>(in.Number(UINT32_MAX));
  in.Expect(",\n  \"skeleton_bytes\": ");
  m.skeleton_bytes = in.Number(kMaxSkeletonBytes);
  in.Expect(",\n  \"skeleton\": ");
  m.skeleton = in.Sha256Digest();
  in.Expect(",\n  \"holes\": [");
  if (in.Accept("\n    [")) {
    do {
      Hole hole;
      hole.offset = in.Number(kMaxSkeletonBytes);
      in.Expect(", ");
      hole.bytes = in.Number(kMaxSkeletonBytes);
      in.Expect("]");
      m.holes.push_back(hole);
      if (m.holes.size() > kMaxMatrices) in.Fail("too many holes");
    } while (in.Accept(",\n    ["));
  }
  in.Expect("\n  ],\n  \"groups\": [\n");
  size_t matrices = 0;
  do {
    if (in.failed()) break;
    m.groups.push_back(ReadGroup(in, matrices));
  } while (in.Accept(",\n"));
  in.Expect("\n  ]\n}\n");
  if (!in.failed() && !in.AtEnd()) in.Fail("bytes after the end");
  if (Status s = in.status(); !s.ok()) return s.Annotate("manifest");
  if (Status s = ValidateManifest(m); !s.ok()) {
    return Status(s.code() == Code::kUnsupported ? Code::kUnsupported : Code::kCorrupt,
                  s.message());
  }
  // Canonical by construction of the reader; cheap enough to prove each time.
  if (EncodeManifest(m) != text) return Status(Code::kCorrupt, "manifest: not in canonical form");
  return m;
}

Status ValidateManifest(const Manifest& m) {
  const auto bad = [](const std::string& what) {
    return Status(Code::kInvalidArgument, "manifest: " + what);
  };
  if (m.format_version != kFormatVersion) {
    return Status(Code::kUnsupported,
                  "manifest: format version " + std::to_string(m.format_version));
  }
  if (auto profile = ring::FindProfile(m.profile); !profile.ok())
    return profile.status().Annotate("manifest");
  if (m.model_name.size() > kMaxNameBytes || !IsPrintable(m.model_name))
    return bad("model_name is not printable ASCII");
  if (m.tool_version.size() > kMaxNameBytes || !IsPrintable(m.tool_version))
    return bad("tool_version is not printable ASCII");
  if (m.skeleton_bytes > kMaxSkeletonBytes) return bad("the skeleton is too large");
  if (m.holes.size() > kMaxMatrices) return bad("too many holes");
  uint64_t end = 0;  // of the previous hole
  for (const Hole& hole : m.holes) {
    if (hole.bytes == 0 || hole.offset < end || hole.offset > m.skeleton_bytes ||
        hole.bytes > m.skeleton_bytes - hole.offset) {
      return bad("holes are empty, unsorted, overlapping or outside the skeleton");
    }
    end = hole.offset + hole.bytes;
  }
  if (m.groups.empty()) return bad("no groups");
  std::set<std::string_view> names;
  size_t matrices = 0;
  for (const Group& group : m.groups) {
    if (group.d == 0 || group.d > kMaxInputs) return bad("a group has a width out of range");
    if (group.matrices.empty()) return bad("a group has no matrices");
    uint64_t outputs = 0;
    for (const Matrix& w : group.matrices) {
      if (++matrices > kMaxMatrices) return bad("too many matrices");
      if (w.name.empty() || w.name.size() > kMaxNameBytes || !IsPrintable(w.name))
        return bad("a name is not printable ASCII");
      if (!names.insert(w.name).second) return bad(w.name + " occurs twice");
      if (w.o == 0 || w.o > kMaxOutputs)
        return bad(w.name + " has a number of outputs out of range");
      if (w.role == Role::kTiedHead ? w.name != kTiedHeadName : w.role != Role::kLinear)
        return bad(w.name + " cannot have its role");
      outputs += PaddedOutputs(w.o);
    }
    // GroupOutputs and ColumnOffset are 32-bit.
    if (outputs > kMaxOutputs) return bad("a group has too many outputs");
  }
  return OkStatus();
}

Digest ModelIdentity(std::string_view manifest_text) { return Sha256Of(AsBytes(manifest_text)); }

Digest CoreDigest(const Manifest& manifest) {
  std::vector<MatrixRef> sorted = AllMatrices(manifest);
  std::sort(sorted.begin(), sorted.end(), [](const MatrixRef& a, const MatrixRef& b) {
    return std::pair(std::string_view(a.matrix->name), a.matrix->role) <
           std::pair(std::string_view(b.matrix->name), b.matrix->role);
  });
  ring::Profile profile{};
  for (const ring::Profile& p : ring::kProfiles) {
    if (p.id == manifest.profile) profile = p;
  }
  std::vector<uint8_t> bytes;
  ByteWriter out(bytes);
  out.Raw(AsBytes("talaria/core/v1"));
  out.U32(manifest.format_version);
  out.U32(manifest.profile);
  out.U32(static_cast<uint32_t>(profile.degree));
  out.U32(static_cast<uint32_t>(profile.rank));
  out.U64(ring::kQ);
  out.U32(static_cast<uint32_t>(profile.eta));
  out.U32(static_cast<uint32_t>(sorted.size()));
  for (const MatrixRef& ref : sorted) {
    out.U32(static_cast<uint32_t>(ref.matrix->name.size()));
    out.Raw(AsBytes(ref.matrix->name));
    out.U8(static_cast<uint8_t>(ref.matrix->role));
    out.U32(ref.group->d);
    out.U32(ref.matrix->o);
    out.Raw(ref.matrix->weights);
  }
  return Sha256Of(bytes);
}

std::vector<MatrixRef> AllMatrices(const Manifest& manifest) {
  std::vector<MatrixRef> all;
  for (uint32_t g = 0; g < manifest.groups.size(); ++g) {
    const Group& group = manifest.groups[g];
    for (uint32_t i = 0; i < group.matrices.size(); ++i)
      all.push_back({&group, &group.matrices[i], g, i});
  }
  return all;
}

uint32_t PaddedOutputs(uint32_t o) { return (o + 31) / 32 * 32; }

uint32_t GroupOutputs(const Group& group) { return ColumnOffset(group, group.matrices.size()); }

uint32_t ColumnOffset(const Group& group, size_t member) {
  uint32_t offset = 0;
  for (size_t i = 0; i < member; ++i) offset += PaddedOutputs(group.matrices[i].o);
  return offset;
}

}  // namespace talaria::model
