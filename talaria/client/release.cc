#include "talaria/client/release.h"

#include <algorithm>
#include <utility>

#include "talaria/attest/refusal.h"
#include "talaria/base/file.h"

namespace talaria::client {
namespace {

using attest::Refuse;

constexpr std::string_view kDomain{"talaria-release-v1\0", 19};
constexpr std::string_view kSignatureBefore = "signature = \"";
constexpr std::string_view kSignatureAfter = "\"\n";
constexpr size_t kSignatureDigits = 2 * tenant::kSignatureBytes;
constexpr size_t kMaxWord = 64;
constexpr std::string_view kRtmrs[] = {"rtmr0", "rtmr1", "rtmr2", "rtmr3"};

bool IsWord(std::string_view text) {
  constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-";
  return !text.empty() && text.size() <= kMaxWord &&
         text.find_first_not_of(kLetters) == std::string_view::npos;
}

bool IsDate(std::string_view text) {
  constexpr std::string_view kForm = "dddd-dd-dd";
  if (text.size() != kForm.size()) return false;
  for (size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kForm[i] == 'd' ? !digit : text[i] != kForm[i]) return false;
  }
  const int month = (text[5] - '0') * 10 + (text[6] - '0');
  const int day = (text[8] - '0') * 10 + (text[9] - '0');
  return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

bool IsList(const ReleaseMeasurements& list) {
  if (list.empty() || list.size() > kMaxReleaseMeasurements) return false;
  for (auto at = list.begin(); at != list.end(); ++at) {
    if (std::find(list.begin(), at, *at) != at) return false;
  }
  return true;
}

// Why a file cannot state it; empty if it can.
std::string Fault(const Release& release) {
  if (!IsWord(release.name)) return "name must be 1 to 64 letters, digits and . _ + -";
  if (!IsWord(release.version)) return "version must be 1 to 64 letters, digits and . _ + -";
  if (!IsDate(release.date)) return "date must be YYYY-MM-DD";
  if (!release.sev_snp && !release.tdx && !release.simulated)
    return "it must have measurements of one platform at least";
  bool good = (!release.sev_snp || IsList(*release.sev_snp)) &&
              (!release.simulated || IsList(*release.simulated));
  if (release.tdx) {
    good = good && IsList(release.tdx->mrtd) && std::ranges::all_of(release.tdx->rtmr, IsList);
  }
  return good ? "" : "a list must have 1 to 256 measurements, none twice";
}

std::string Line(std::string_view key, const ReleaseMeasurements& list) {
  std::string out = std::string(key) + " = [";
  for (const auto& value : list) out += (&value == &list[0] ? "\"" : ", \"") + ToHex(value) + "\"";
  return out + "]\n";
}

// Goes through the lines. After the first failure every read gives nothing.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}

  // Exactly these characters.
  bool Take(std::string_view wanted) {
    if (!At(wanted)) return Fail(wanted), false;
    rest_.remove_prefix(wanted.size());
    number_ += std::ranges::count(wanted, '\n');
    return true;
  }
  bool At(std::string_view wanted) const { return status_.ok() && rest_.starts_with(wanted); }
  // key = "..."
  std::string Text(std::string_view key) {
    const std::string before = std::string(key) + " = \"";
    if (!Take(before)) return {};
    const size_t end = rest_.find('"');
    if (end == std::string_view::npos || end > kMaxWord) return Fail(before + "...\""), "";
    std::string out(rest_.substr(0, end));
    rest_.remove_prefix(end);
    Take("\"\n");
    return out;
  }
  // key = ["...", "..."]
  ReleaseMeasurements List(std::string_view key) {
    ReleaseMeasurements out;
    if (!Take(std::string(key) + " = [")) return {};
    do {
      std::array<uint8_t, 48> value;
      if (!Take("\"")) return {};
      if (!FromHex(rest_.substr(0, 2 * value.size()), value)) {
        Fail("96 lower-case hexadecimal digits");
        return {};
      }
      rest_.remove_prefix(2 * value.size());
      if (!Take("\"")) return {};
      out.push_back(value);
      if (out.size() > kMaxReleaseMeasurements) return Fail("at most 256 of them"), out;
    } while (At(", ") && Take(", "));
    Take("]\n");
    return out;
  }
  bool done() const { return rest_.empty(); }
  void Fail(std::string_view wanted) {
    if (!status_.ok()) return;
    const size_t end = std::min(rest_.find('\n'), rest_.size());
    std::string shown(wanted.substr(0, wanted.find('\n')));
    if (shown.empty()) shown = "an empty line or the end";
    status_ = Refuse("release-format",
                     "line " + std::to_string(number_) + ", at \"" +
                         attest::Printable(rest_.substr(0, std::min<size_t>(end, 40))) + "\"",
                     shown);
  }
  const Status& status() const { return status_; }

 private:
  std::string_view rest_;
  int64_t number_ = 2;  // the signature is the first line of a file
  Status status_;
};

template <class T>
void Confirm(attest::PolicyRemarks& remarks, const std::string& field, T& to,
             const ReleaseMeasurements& from) {
  to = from;
  std::erase(remarks.unconfirmed, field);
}

}  // namespace

Result<std::string> EncodeRelease(const Release& release) {
  if (const std::string fault = Fault(release); !fault.empty())
    return Status(Code::kInvalidArgument, "a release file cannot state this: " + fault);
  std::string out = "format = 1\nname = \"" + release.name + "\"\nversion = \"" + release.version +
                    "\"\ndate = \"" + release.date + "\"\n";
  if (release.sev_snp) out += "\n[sev_snp]\n" + Line("measurements", *release.sev_snp);
  if (release.tdx) {
    out += "\n[tdx]\n" + Line("mrtd", release.tdx->mrtd);
    for (size_t i = 0; i < 4; ++i) out += Line(kRtmrs[i], release.tdx->rtmr[i]);
  }
  if (release.simulated) out += "\n[simulated]\n" + Line("measurements", *release.simulated);
  return out;
}

Result<Release> ParseRelease(std::string_view text) {
  if (text.size() > kMaxReleaseBytes) {
    return Refuse("release-format", std::to_string(text.size()) + " bytes",
                  "at most " + std::to_string(kMaxReleaseBytes));
  }
  Lines lines(text);
  Release out;
  lines.Take("format = 1\n");
  out.name = lines.Text("name");
  out.version = lines.Text("version");
  out.date = lines.Text("date");
  const auto table = [&](std::string_view header) {
    return lines.At("\n" + std::string(header)) && lines.Take("\n" + std::string(header));
  };
  if (table("[sev_snp]\n")) out.sev_snp = lines.List("measurements");
  if (table("[tdx]\n")) {
    out.tdx.emplace().mrtd = lines.List("mrtd");
    for (size_t i = 0; i < 4; ++i) out.tdx->rtmr[i] = lines.List(kRtmrs[i]);
  }
  if (table("[simulated]\n")) out.simulated = lines.List("measurements");
  if (!lines.done()) lines.Fail("");
  TALARIA_RETURN_IF_ERROR(lines.status());
  if (const std::string fault = Fault(out); !fault.empty())
    return Refuse("release-format", "something else", fault);
  return out;
}

Result<std::string> SignRelease(const Release& release, const tenant::TenantKey& builder) {
  TALARIA_ASSIGN_OR_RETURN(const std::string text, EncodeRelease(release));
  TALARIA_ASSIGN_OR_RETURN(const tenant::Signature signature, builder.Sign(kDomain, AsBytes(text)));
  return std::string(kSignatureBefore) + ToHex(signature) + std::string(kSignatureAfter) + text;
}

Result<Release> VerifyRelease(std::string_view file, const tenant::PublicKey& builder) {
  const size_t head = kSignatureBefore.size() + kSignatureDigits + kSignatureAfter.size();
  tenant::Signature signature;
  if (file.size() > kMaxReleaseBytes || file.size() <= head ||
      !file.starts_with(kSignatureBefore) ||
      !FromHex(file.substr(kSignatureBefore.size(), kSignatureDigits), signature) ||
      file.substr(head - kSignatureAfter.size(), kSignatureAfter.size()) != kSignatureAfter) {
    return Refuse("release-format", "a first line that is something else",
                  "signature = \"128 lower-case hexadecimal digits\"");
  }
  const std::string_view text = file.substr(head);
  if (!tenant::Verify(builder, kDomain, AsBytes(text), signature)) {
    return Refuse("release-signature", "what this builder has not signed",
                  "a signature of the key " + ToHex(builder));
  }
  return ParseRelease(text);
}

Result<Release> LoadRelease(const std::string& path, const tenant::PublicKey& builder) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path, kMaxReleaseBytes));
  return VerifyRelease({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, builder);
}

Status ApplyRelease(const Release& release, const tenant::PublicKey& builder, PolicyDraft& draft) {
  attest::Policy& policy = draft.policy;
  attest::PolicyRemarks& remarks = draft.remarks;
  const auto missing = [&](const char* what) {
    return Status(Code::kInvalidArgument, "the release " + release.name + " " + release.version +
                                              " has no measurements of " + what);
  };
  if (policy.sev_snp) {
    if (!release.sev_snp) return missing("SEV-SNP");
    Confirm(remarks, "sev_snp.measurements", *policy.sev_snp->measurements, *release.sev_snp);
  }
  if (policy.tdx) {
    if (!release.tdx) return missing("TDX");
    attest::TdxPolicy& tdx = policy.tdx->policy;
    Confirm(remarks, "tdx.mrtd", tdx.mrtd, release.tdx->mrtd);
    Confirm(remarks, "tdx.rtmr0", tdx.rtmr0, release.tdx->rtmr[0]);
    Confirm(remarks, "tdx.rtmr1", tdx.rtmr1, release.tdx->rtmr[1]);
    Confirm(remarks, "tdx.rtmr2", tdx.rtmr2, release.tdx->rtmr[2]);
    Confirm(remarks, "tdx.rtmr3", tdx.rtmr3, release.tdx->rtmr[3]);
  }
  if (policy.simulated) {
    if (!release.simulated) return missing("the simulated TEE");
    Confirm(remarks, "simulated.measurements", *policy.simulated->measurements, *release.simulated);
  }
  remarks.heading.push_back("Measurements: of " + release.name + " " + release.version + " of " +
                            release.date + ", signed by the builder's key " + ToHex(builder) + ".");
  return OkStatus();
}

}  // namespace talaria::client
