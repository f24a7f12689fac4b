#include <cstdio>

#include "talaria/attest/facts.h"
#include "talaria/attest/policy_file.h"

namespace talaria::attest {
namespace {

std::string Quoted(const std::string& text) { return "\"" + text + "\""; }

std::string Bits(uint64_t bits) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(bits));
  return text;
}

// Words about evidence may come from whoever sent it: they must not end a comment or a string.
std::string OneLine(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return out;
}

// One file, from top to bottom.
class Writer {
 public:
  explicit Writer(const PolicyRemarks& remarks) : remarks_(remarks) {}

  void Comment(std::string_view text) { out_ += "# " + OneLine(text) + "\n"; }
  void Blank() { out_ += "\n"; }
  // `prefix` names the table's fields in remarks.
  void Table(std::string_view header, std::string_view prefix) {
    out_ += "\n" + std::string(header) + "\n";
    prefix_ = std::string(prefix) + ".";
  }
  void Value(std::string_view key, const std::string& value, std::string_view comment = {}) {
    if (!comment.empty()) Comment(comment);
    const std::string field = prefix_ + std::string(key);
    if (const auto found = remarks_.of_field.find(field); found != remarks_.of_field.end()) {
      Comment(found->second);
    }
    for (const std::string& unconfirmed : remarks_.unconfirmed) {
      if (unconfirmed == field) Comment("UNCONFIRMED");
    }
    out_ += std::string(key) + " = " + value + "\n";
  }
  void Bool(std::string_view key, bool value, std::string_view comment = {}) {
    Value(key, value ? "true" : "false", comment);
  }
  void Integer(std::string_view key, int64_t value, std::string_view comment = {}) {
    Value(key, std::to_string(value), comment);
  }
  template <size_t N>
  void Hex(std::string_view key, const std::array<uint8_t, N>& value, std::string_view comment) {
    Value(key, Quoted(ToHex(value)), comment);
  }
  template <size_t N>
  void Hex(std::string_view key, const std::vector<std::array<uint8_t, N>>& values,
           std::string_view comment = {}) {
    std::vector<std::string> texts;
    for (const auto& value : values) texts.push_back(Quoted(ToHex(value)));
    Value(key, List(texts), comment);
  }
  template <size_t N>
  void Hex(std::string_view key, const Accepted<std::array<uint8_t, N>>& accepted,
           std::string_view comment = {}) {
    if (accepted.any()) return Value(key, Quoted("any"), comment);
    Hex(key, accepted.values(), comment);
  }
  void Words(std::string_view key, const std::vector<std::string>& values,
             std::string_view comment) {
    std::vector<std::string> texts;
    for (const std::string& value : values) texts.push_back(Quoted(value));
    Value(key, List(texts), comment);
  }
  static std::string List(const std::vector<std::string>& values) {
    std::string out = "[";
    for (const std::string& value : values) {
      // One to a line, unless there is but one.
      out += values.size() > 1 ? "\n  " + value + "," : value;
    }
    return out + (values.size() > 1 ? "\n]" : "]");
  }
  std::string Take() { return std::move(out_); }

 private:
  const PolicyRemarks& remarks_;
  std::string prefix_;
  std::string out_;
};

void WriteContext(Writer& out, const ContextPolicy& policy) {
  out.Table("[context]", "context");
  out.Hex("model_identities", policy.model_identities, "SHA-256 of a provisioned manifest.json.");
  out.Hex("configurations", policy.configurations,
          "SHA-256 of the CVM's configuration file, or \"any\".");
  out.Hex("tenant_keys", policy.tenant_keys, "Raw Ed25519 public keys, or \"any\".");
  std::vector<std::string> profiles;
  for (const uint16_t id : *policy.profiles) profiles.push_back(std::to_string(id));
  out.Value("profiles", Writer::List(profiles), "Parameters of the masks, by number.");
  out.Integer("min_check_vectors", *policy.min_check_vectors,
              "Each lets a wrong product pass with a probability of 2^-48.");
  out.Bool("allow_development", *policy.allow_development,
           "Builds that can be told to protect nothing.");
}

void WriteSnp(Writer& out, const SnpPolicy& policy) {
  out.Table("[sev_snp]", "sev_snp");
  out.Hex("measurements", *policy.measurements, "MEASUREMENT of the guest; never \"any\".");
  out.Hex("host_data", *policy.host_data, "Zeros, here and below: the guest has none.");
  out.Hex("id_key_digests", *policy.id_key_digests);
  out.Hex("author_key_digests", *policy.author_key_digests);
  out.Hex("family_ids", *policy.family_ids);
  out.Hex("image_ids", *policy.image_ids);
  constexpr std::string_view kChips = "CHIP_ID of the machines, or \"any\".";
  if (policy.chips.any()) {
    out.Value("chips", Quoted("any"), kChips);
  } else {
    out.Hex("chips", policy.chips.listed(), kChips);
  }
  out.Integer("vmpl", *policy.vmpl, "Exactly this; 0 without a paravisor.");
  out.Integer("min_guest_svn", *policy.min_guest_svn);
  out.Value("required_guest_policy", Quoted(Bits(*policy.required_guest_policy)),
            "Bits of POLICY that must be set, for instance 0x1000000: ciphertext hiding.");
  out.Bool("allow_smt", *policy.allow_smt);
  out.Bool("allow_cxl", *policy.allow_cxl);
  out.Words("vlek_csp_ids", *policy.vlek_csp_ids,
            "Clouds whose own key is accepted instead of a chip's; empty: none.");
  out.Bool("allow_provisional_firmware", *policy.allow_provisional_firmware,
           "Firmware that the machine can still go back from.");
  for (const SnpProductPolicy& product : *policy.products) {
    const TcbVersion& tcb = *product.min_tcb;
    out.Table("[[sev_snp.product]]", "sev_snp.product");
    out.Value("name", Quoted(std::string(SnpProductName(product.product))));
    const bool turin = product.product == SnpProduct::kTurin;
    out.Value("min_tcb",
              "{ " + (turin ? "fmc = " + std::to_string(tcb.fmc) + ", " : std::string()) +
                  "boot_loader = " + std::to_string(tcb.boot_loader) +
                  ", tee = " + std::to_string(tcb.tee) + ", snp = " + std::to_string(tcb.snp) +
                  ", microcode = " + std::to_string(tcb.microcode) + " }",
              "Of the reported, the committed and the launch TCB, each component.");
    out.Value("required_platform_info", Quoted(Bits(*product.required_platform_info)),
              "Bits of PLATFORM_INFO that must be set; 0x20: the check against BadRAM ran.");
    out.Value("required_launch_mitigations", Quoted(Bits(*product.required_launch_mitigations)));
    out.Value("required_current_mitigations", Quoted(Bits(*product.required_current_mitigations)));
  }
}

void WriteTdx(Writer& out, const TdxSection& section) {
  const TdxPolicy& policy = section.policy;
  out.Table("[tdx]", "tdx");
  out.Hex("mrtd", policy.mrtd, "Firmware. Measurements, and service TDs, are never \"any\".");
  out.Hex("rtmr0", policy.rtmr0, "Configuration of the firmware.");
  out.Hex("rtmr1", policy.rtmr1, "Kernel.");
  out.Hex("rtmr2", policy.rtmr2, "Command line and initrd.");
  out.Hex("rtmr3", policy.rtmr3, "Application.");
  out.Hex("mrconfigid", policy.mrconfigid, "Zeros, here and below: the TD has none.");
  out.Hex("mrowner", policy.mrowner);
  out.Hex("mrownerconfig", policy.mrownerconfig);
  out.Hex("mrservicetd", policy.mrservicetd);
  out.Value("allowed_xfam", Quoted(Bits(*policy.allowed_xfam)));
  out.Bool("accept_septve_enabled", *policy.accept_septve_enabled);
  out.Bool("accept_key_locker", *policy.accept_key_locker);
  out.Bool("accept_perfmon", *policy.accept_perfmon);
  out.Bool("accept_sw_hardening_needed", *policy.accept_sw_hardening_needed,
           "Besides UpToDate; no other status is ever accepted.");
  out.Hex("min_tee_tcb_svn", *policy.min_tee_tcb_svn, "Component by component.");
  out.Hex("min_tee_tcb_svn2", *policy.min_tee_tcb_svn2, "Zeros to accept TDX 1.0.");
  out.Hex("fmspc", policy.fmspc, "Families of machines, or \"any\".");
  out.Hex("ppid", policy.ppid, "Machines, or \"any\".");
  out.Integer("min_tcb_evaluation_data_number", *section.min_tcb_evaluation_data_number,
              "Collateral from before this TCB recovery is refused.");
}

// "a; b; c" for people; what an empty list means is said.
template <size_t N>
std::string Words(const std::vector<std::array<uint8_t, N>>& values) {
  std::string out;
  for (const auto& value : values) {
    out += out.empty() ? "" : " or ";
    out += value == std::array<uint8_t, N>{} ? "zeros" : ToHex(value);
  }
  return out.empty() ? "nothing (the list is empty)" : out;
}
template <size_t N>
std::string Words(const Accepted<std::array<uint8_t, N>>& accepted) {
  return accepted.any() ? "anything" : Words(accepted.values());
}
std::string Unless(bool allowed) { return allowed ? "accepted" : "refused"; }

std::string Clouds(const std::vector<std::string>& csp_ids) {
  std::string out;
  for (const std::string& id : csp_ids) out += (out.empty() ? "of " : " or ") + OneLine(id);
  return out.empty() ? "refused" : out + " accepted";
}

void ExplainSnp(const SnpPolicy& policy, std::string& out) {
  out += "AMD SEV-SNP is accepted:\n";
  for (const SnpProductPolicy& product : *policy.products) {
    out += "  on " + std::string(SnpProductName(product.product)) + " with at least " +
           DescribeTcb(product.product, *product.min_tcb) + ", PLATFORM_INFO bits " +
           Bits(*product.required_platform_info) + " and mitigations " +
           Bits(*product.required_launch_mitigations) + " at launch, " +
           Bits(*product.required_current_mitigations) + " now\n";
  }
  if (policy.products->empty()) out += "  on no product (the list is empty)\n";
  out += "  chip " + (policy.chips.any() ? "any" : Words(policy.chips.listed())) + "\n";
  out += "  measurement " + Words(*policy.measurements) + "\n";
  out += "  host data " + Words(*policy.host_data) + "\n";
  out += "  id key " + Words(*policy.id_key_digests) + ", author key " +
         Words(*policy.author_key_digests) + "\n";
  out +=
      "  family id " + Words(*policy.family_ids) + ", image id " + Words(*policy.image_ids) + "\n";
  out += "  at VMPL " + std::to_string(*policy.vmpl) + ", guest SVN at least " +
         std::to_string(*policy.min_guest_svn) + ", POLICY bits " +
         Bits(*policy.required_guest_policy) + "\n";
  out += "  debug and migration refused, SMT " + Unless(*policy.allow_smt) + ", CXL " +
         Unless(*policy.allow_cxl) + ", VLEK " + Clouds(*policy.vlek_csp_ids) +
         ", provisional firmware " + Unless(*policy.allow_provisional_firmware) + "\n";
}

void ExplainTdx(const TdxSection& section, std::string& out) {
  const TdxPolicy& policy = section.policy;
  out += "Intel TDX is accepted:\n";
  out += "  with TCB status UpToDate" +
         std::string(*policy.accept_sw_hardening_needed ? " or SWHardeningNeeded" : "") +
         ", by evaluation " + std::to_string(*section.min_tcb_evaluation_data_number) +
         " or later\n";
  out += "  FMSPC " + Words(policy.fmspc) + ", platform (PPID) " + Words(policy.ppid) + "\n";
  const std::pair<const char*, const Accepted<TdxMeasurement>&> pins[] = {
      {"MRTD", policy.mrtd},
      {"RTMR0", policy.rtmr0},
      {"RTMR1", policy.rtmr1},
      {"RTMR2", policy.rtmr2},
      {"RTMR3", policy.rtmr3},
      {"MRCONFIGID", policy.mrconfigid},
      {"MROWNER", policy.mrowner},
      {"MROWNERCONFIG", policy.mrownerconfig},
      {"service TD", policy.mrservicetd}};
  for (const auto& [name, accepted] : pins) {
    out += "  " + std::string(name) + " " + Words(accepted) + "\n";
  }
  out += "  TEE_TCB_SVN at least " + ToHex(*policy.min_tee_tcb_svn) + ", of the running module " +
         ToHex(*policy.min_tee_tcb_svn2) + ", XFAM within " + Bits(*policy.allowed_xfam) + "\n";
  out += "  debug and migration refused, #VE anywhere " + Unless(*policy.accept_septve_enabled) +
         ", key locker " + Unless(*policy.accept_key_locker) + ", performance monitoring " +
         Unless(*policy.accept_perfmon) + "\n";
}

}  // namespace

std::string WritePolicy(const Policy& policy, const PolicyRemarks& remarks) {
  Writer out(remarks);
  for (const std::string& line : remarks.heading) out.Comment(line);
  if (!remarks.unconfirmed.empty()) {
    if (!remarks.heading.empty()) out.Blank();
    out.Comment("Copied from evidence. This file is refused until you have compared each of these");
    out.Comment("with what you built yourself and have taken it off the list.");
    std::vector<std::string> fields;
    for (const std::string& field : remarks.unconfirmed) {
      std::string safe = OneLine(field);
      for (char& c : safe) {
        if (c == '"' || c == '\\') c = '?';
      }
      fields.push_back(Quoted(safe));
    }
    out.Value("unconfirmed", Writer::List(fields));
  }
  out.Table("[policy]", "policy");
  out.Integer("max_age_s", *policy.max_age_s, "Seconds that one attestation stands.");
  out.Bool("require_post_quantum", *policy.require_post_quantum, "Of the key exchange.");
  out.Value("crls", Quoted(*policy.crls == CrlHandling::kRequired ? "required" : "accept-missing"),
            "\"required\" or \"accept-missing\": a list that is there always counts.");
  WriteContext(out, *policy.context);
  if (policy.sev_snp) WriteSnp(out, *policy.sev_snp);
  if (policy.tdx) WriteTdx(out, *policy.tdx);
  if (policy.simulated) {
    out.Table("[simulated]", "simulated");
    out.Comment("PROTECTS NOTHING: anybody can make simulated evidence.");
    out.Hex("measurements", *policy.simulated->measurements);
  }
  return out.Take();
}

std::string ExplainPolicy(const Policy& policy) {
  const ContextPolicy& context = *policy.context;
  std::string out = "An attestation stands for " + std::to_string(*policy.max_age_s) + " s.\n";
  out += *policy.require_post_quantum ? "The key exchange must be post-quantum.\n"
                                      : "The key exchange may be a classical one.\n";
  out += *policy.crls == CrlHandling::kRequired
             ? "Revocation lists must be there.\n"
             : "Revocation lists may be missing; one that is there counts.\n";
  out += "Model: " + Words(context.model_identities) + ".\n";
  out += "Configuration: " + Words(context.configurations) + ".\n";
  out += "Tenant key: " + Words(context.tenant_keys) + ".\n";
  std::string profiles;
  for (const uint16_t id : *context.profiles) {
    profiles += (profiles.empty() ? "" : " or ") + std::to_string(id);
  }
  out += "Profile: " + (profiles.empty() ? "nothing (the list is empty)" : profiles) +
         "; at least " + std::to_string(*context.min_check_vectors) +
         " check vectors; development builds are " + Unless(*context.allow_development) + ".\n";
  if (policy.sev_snp) {
    ExplainSnp(*policy.sev_snp, out);
  } else {
    out += "AMD SEV-SNP is refused.\n";
  }
  if (policy.tdx) {
    ExplainTdx(*policy.tdx, out);
  } else {
    out += "Intel TDX is refused.\n";
  }
  if (policy.simulated) {
    out +=
        "THE SIMULATED TEE, WHICH PROTECTS NOTHING, is accepted where --insecure-simulated-tee "
        "is given: measurement " +
        Words(*policy.simulated->measurements) + "\n";
  } else {
    out += "The simulated TEE is refused.\n";
  }
  return out;
}

}  // namespace talaria::attest
