#include "talaria/client/policy_draft.h"

#include <utility>
#include <vector>

#include "talaria/attest/facts.h"
#include "talaria/attest/snp/report.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"
#include "talaria/base/file.h"

namespace talaria::client {
namespace {

using attest::Policy;
using attest::PolicyRemarks;

constexpr int kMaxAgeS = 3600;
constexpr uint8_t kCheckVectors = 2;  // what a CVM has unless its configuration says one: 2^-96

Policy BasePolicy(const attest::Context& context) {
  return {.context = attest::ContextPolicy{.model_identities = {context.model_identity},
                                           .configurations = {context.configuration},
                                           .tenant_keys = {context.tenant_key},
                                           .profiles = std::vector<uint16_t>{context.profile},
                                           .min_check_vectors = context.check_vectors,
                                           .allow_development = false},
          .max_age_s = kMaxAgeS,
          .require_post_quantum = false,
          .crls = attest::CrlHandling::kRequired,
          .sev_snp = std::nullopt,
          .tdx = std::nullopt,
          .simulated = std::nullopt,
          .digest = {}};
}

attest::SnpPolicy SnpPolicyOf(const attest::SnpReport& report) {
  return {.products = std::vector<attest::SnpProductPolicy>{{
              .product = report.product,
              .min_tcb = report.reported_tcb,
              .required_platform_info = attest::snp_platform_info::kAliasCheckComplete,
              .required_launch_mitigations = uint64_t{0},
              .required_current_mitigations = uint64_t{0},
          }},
          .measurements = std::vector{report.measurement},
          .host_data = std::vector{report.host_data},
          .id_key_digests = std::vector{report.id_key_digest},
          .author_key_digests = std::vector{report.author_key_digest},
          .family_ids = std::vector{report.family_id},
          .image_ids = std::vector{report.image_id},
          .chips = attest::SnpChips::Listed({report.chip_id}),
          .vmpl = report.vmpl,
          .min_guest_svn = report.guest_svn,
          .required_guest_policy = uint64_t{0},
          .allow_smt = false,
          .allow_cxl = false,
          .vlek_csp_ids = std::vector<std::string>{},
          .allow_provisional_firmware = false};
}

attest::TdxSection TdxSectionOf(const attest::TdReport& report,
                                attest::Accepted<attest::Fmspc> fmspc,
                                attest::Accepted<attest::Ppid> ppid) {
  attest::TdxSvns svn2{};
  attest::TdxMeasurement service_td{};
  if (report.tdx15) {
    svn2 = report.tdx15->tee_tcb_svn2;
    service_td = report.tdx15->mrservicetd;
  }
  return {.policy = {.mrtd = {report.mrtd},
                     .rtmr0 = {report.rtmr[0]},
                     .rtmr1 = {report.rtmr[1]},
                     .rtmr2 = {report.rtmr[2]},
                     .rtmr3 = {report.rtmr[3]},
                     .mrconfigid = {report.mrconfigid},
                     .mrowner = {report.mrowner},
                     .mrownerconfig = {report.mrownerconfig},
                     .mrservicetd = {service_td},
                     .allowed_xfam = report.xfam,
                     .accept_septve_enabled = false,
                     .accept_key_locker = false,
                     .accept_perfmon = false,
                     .accept_sw_hardening_needed = false,
                     .min_tee_tcb_svn = report.tee_tcb_svn,
                     .min_tee_tcb_svn2 = svn2,
                     .fmspc = std::move(fmspc),
                     .ppid = std::move(ppid)},
          .min_tcb_evaluation_data_number = uint32_t{0}};
}

const std::vector<std::string>& SnpFields() {
  static const std::vector<std::string> fields = {
      "sev_snp.measurements",   "sev_snp.host_data",
      "sev_snp.id_key_digests", "sev_snp.author_key_digests",
      "sev_snp.family_ids",     "sev_snp.image_ids",
      "sev_snp.chips",          "sev_snp.vmpl",
      "sev_snp.min_guest_svn",  "sev_snp.product.name",
      "sev_snp.product.min_tcb"};
  return fields;
}

const std::vector<std::string>& TdxFields() {
  static const std::vector<std::string> fields = {"tdx.mrtd",
                                                  "tdx.rtmr0",
                                                  "tdx.rtmr1",
                                                  "tdx.rtmr2",
                                                  "tdx.rtmr3",
                                                  "tdx.mrconfigid",
                                                  "tdx.mrowner",
                                                  "tdx.mrownerconfig",
                                                  "tdx.mrservicetd",
                                                  "tdx.allowed_xfam",
                                                  "tdx.min_tee_tcb_svn",
                                                  "tdx.min_tee_tcb_svn2",
                                                  "tdx.fmspc",
                                                  "tdx.ppid",
                                                  "tdx.min_tcb_evaluation_data_number"};
  return fields;
}

void Add(std::vector<std::string>& to, const std::vector<std::string>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

void AllowSimulated(Policy& policy, const attest::SnpMeasurement& measurement) {
  policy.simulated = attest::SimulatedPolicy{.measurements = std::vector{measurement}};
  policy.context->allow_development = true;  // its context always says so
}

}  // namespace

Result<PolicyDraft> DraftFromClaim(const attest::Claim& claim) {
  PolicyDraft draft{BasePolicy(claim.context), {}};
  PolicyRemarks& remarks = draft.remarks;
  remarks.heading = {"A draft by `talaria policy init`, from evidence that nobody has verified."};
  remarks.unconfirmed = {"context.model_identities", "context.configurations",
                         "context.tenant_keys", "context.profiles", "context.min_check_vectors"};
  const attest::Evidence& evidence = claim.evidence;
  if (evidence.type == attest::EvidenceType::kTdx) {
    TALARIA_ASSIGN_OR_RETURN(const attest::TdxQuote quote, attest::ParseTdxQuote(evidence.report));
    // Which machine: only the chain of certificates says, and it is for the verifier to read it.
    draft.policy.tdx = TdxSectionOf(quote.body, std::vector<attest::Fmspc>{},
                                    attest::Accepted<attest::Ppid>::Any());
    remarks.of_field["tdx.fmspc"] =
        "Which machines: `talaria verify` names the FMSPC of the one that answers.";
    Add(remarks.unconfirmed, TdxFields());
    return draft;
  }
  TALARIA_ASSIGN_OR_RETURN(const attest::SnpReport report,
                           attest::ParseSnpReport(evidence.report, std::nullopt));
  if (evidence.type == attest::EvidenceType::kSimulated) {
    AllowSimulated(draft.policy, report.measurement);
    remarks.unconfirmed.push_back("simulated.measurements");
  } else {
    draft.policy.sev_snp = SnpPolicyOf(report);
    Add(remarks.unconfirmed, SnpFields());
  }
  return draft;
}

PolicyDraft DraftFromValues(const KnownValues& known) {
  PolicyDraft draft{BasePolicy({.version = attest::kAttestationVersion,
                                .model_identity = known.model_identity,
                                .profile = 1,
                                .check_vectors = kCheckVectors,
                                .configuration = known.configuration,
                                .tenant_key = known.tenant_key,
                                .development = false}),
                    {}};
  draft.remarks.heading = {"A draft by `talaria policy init`."};
  switch (known.type) {
    case attest::EvidenceType::kSimulated:
      AllowSimulated(draft.policy, known.measurement);
      break;
    case attest::EvidenceType::kTdx: {
      attest::TdReport report;
      report.mrtd = known.measurement;
      report.xfam = attest::kXfamX87AndSse;
      draft.policy.tdx =
          TdxSectionOf(report, std::vector<attest::Fmspc>{}, attest::Accepted<attest::Ppid>::Any());
      for (const std::string& field : TdxFields()) {
        if (field != "tdx.mrtd") draft.remarks.unconfirmed.push_back(field);
      }
      break;
    }
    case attest::EvidenceType::kSevSnp: {
      attest::SnpReport report;
      report.product = attest::SnpProduct::kGenoa;
      report.measurement = known.measurement;
      attest::SnpPolicy policy = SnpPolicyOf(report);
      policy.chips = attest::SnpChips::Listed({});
      draft.policy.sev_snp = std::move(policy);
      // The floor and the machines are the user's to fill in.
      draft.remarks.unconfirmed = {"sev_snp.chips", "sev_snp.product.name",
                                   "sev_snp.product.min_tcb"};
      break;
    }
  }
  return draft;
}

Result<attest::Claim> ReadClaim(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes,
                           ReadFile(path, 2 * attest::kMaxClaimBytes + 2));
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  std::vector<uint8_t> decoded(text.size() / 2);
  if (text.size() % 2 == 0 && FromHex(text, decoded)) bytes = std::move(decoded);
  return attest::DecodeClaim(bytes);
}

}  // namespace talaria::client
