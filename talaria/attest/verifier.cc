#include "talaria/attest/verifier.h"

#include <algorithm>

#include "talaria/attest/refusal.h"
#include "talaria/attest/snp/certificate_table.h"
#include "talaria/attest/tdx/signatures.h"

namespace talaria::attest {
namespace {

// What evidence of either kind comes to, before the context is looked at.
struct Platform {
  std::vector<uint8_t> measurement;
  UnixTime valid_until;
  Facts facts;
};

template <size_t N>
std::array<uint8_t, N> Filled(uint8_t value) {
  std::array<uint8_t, N> out;
  out.fill(value);
  return out;
}

// The simulated TEE is one machine in good order: all of its reports but the measurement is fixed
// (attest/simulated/). So its section needs no knobs, and its debug, older and other machines are
// refused like real ones.
SnpPolicy PolicyOfSimulated(const SimulatedPolicy& policy) {
  return {.products = std::vector<SnpProductPolicy>{{
              .product = SnpProduct::kGenoa,
              .min_tcb = TcbVersion{.boot_loader = 10, .tee = 0, .snp = 23, .microcode = 84},
              .required_platform_info = snp_platform_info::kAliasCheckComplete,
              .required_launch_mitigations = 0,
              .required_current_mitigations = 0,
          }},
          .measurements = *policy.measurements,
          .host_data = std::vector{SnpHostData{}},
          .id_key_digests = std::vector{SnpKeyDigest{}},
          .author_key_digests = std::vector{SnpKeyDigest{}},
          .family_ids = std::vector{SnpImageId{}},
          .image_ids = std::vector{SnpImageId{}},
          .chips = SnpChips::Listed({Filled<64>(0x51)}),
          .vmpl = 0,
          .min_guest_svn = 0,
          .required_guest_policy = 0,
          .allow_smt = false,
          .allow_cxl = false,
          .vlek_csp_ids = std::vector<std::string>{},
          .allow_provisional_firmware = false};
}

std::string RevocationWords(bool checked) {
  return checked ? "checked: not revoked" : "not checked: no list at hand";
}

// When the first of the certificates and lists that were verified expires.
UnixTime SnpValidUntil(const Evidence& evidence, const SnpReport& report,
                       const SnpProductRoots& roots, const std::optional<Crl>& crl) {
  const bool vcek = report.signing_key == SnpSigningKey::kVcek;
  UnixTime out = std::min(roots.ark.not_after(), (vcek ? roots.ask : roots.asvk).not_after());
  if (crl) out = std::min(out, crl->next_update());
  // Both parse: the leaf was verified.
  const auto table = ParseCertificateTable(evidence.certificates);
  if (!table.ok()) return 0;
  const auto vek = Certificate::FromDer(vcek ? table->vcek : table->vlek, "vek-format");
  return vek.ok() ? std::min(out, vek->not_after()) : 0;
}

struct SnpTrust {
  const SnpRoots& roots;
  const std::vector<AmdCrl>& crls;
  CrlHandling crl_handling;
};

Result<Platform> VerifySnp(const Evidence& evidence, const ReportData& expected, UnixTime now,
                           const SnpTrust& trust, const SnpPolicy& policy) {
  // For the product only, by which the list is chosen; nothing else of it is believed yet.
  TALARIA_ASSIGN_OR_RETURN(const SnpReport unverified,
                           ParseSnpReport(evidence.report, std::nullopt));
  SnpVerifyOptions options = {.now = now,
                              .crl_policy = trust.crl_handling == CrlHandling::kRequired
                                                ? SnpCrlPolicy::kRequired
                                                : SnpCrlPolicy::kAcceptMissing,
                              .crl = std::nullopt,
                              .version_2_product = std::nullopt};
  const auto crl = std::ranges::find(trust.crls, unverified.product, &AmdCrl::product);
  if (crl != trust.crls.end()) options.crl = crl->crl;
  TALARIA_ASSIGN_OR_RETURN(
      const VerifiedSnpReport verified,
      VerifySnpReportWithTable(evidence.report, evidence.certificates, trust.roots, options));
  TALARIA_RETURN_IF_ERROR(CheckSnpPolicy(verified, policy, expected));

  const SnpReport& report = verified.report();
  const auto roots =
      std::ranges::find(trust.roots.products, report.product, &SnpProductRoots::product);
  Platform out{.measurement = {report.measurement.begin(), report.measurement.end()},
               .valid_until = SnpValidUntil(evidence, report, *roots, options.crl),
               .facts = SnpFacts(verified)};
  out.facts.emplace_back("revocation", RevocationWords(options.crl.has_value()));
  return out;
}

Result<Platform> VerifyTdx(const Evidence& evidence, const ReportData& expected, UnixTime now,
                           const VerifierOptions& options, const TdxSection& section) {
  // The chain comes first: only its leaf says which collateral is wanted.
  TALARIA_ASSIGN_OR_RETURN(const TdxQuote quote, ParseTdxQuote(evidence.report));
  TALARIA_ASSIGN_OR_RETURN(const PckChain chain,
                           VerifyPckChain(quote.pck_chain_pem, options.intel, now));
  const Fmspc& fmspc = chain.extension.fmspc;
  const auto collateral =
      std::ranges::find(options.collateral.tdx, fmspc, &TdxPlatformCollateral::fmspc);
  if (collateral == options.collateral.tdx.end()) {
    return Refuse("tdx-collateral-missing", "a quote of FMSPC " + ToHex(fmspc),
                  "one that there is collateral for");
  }
  const TdxCrlPolicy crls = *options.policy.crls == CrlHandling::kRequired
                                ? TdxCrlPolicy::kRequired
                                : TdxCrlPolicy::kAcceptMissing;
  TALARIA_ASSIGN_OR_RETURN(
      const VerifiedTdxQuote verified,
      VerifyTdxQuote(evidence.report, collateral->files, options.intel,
                     {.now = now,
                      .crl_policy = crls,
                      .min_tcb_evaluation_data_number = section.min_tcb_evaluation_data_number}));
  TALARIA_RETURN_IF_ERROR(CheckTdxPolicy(verified, section.policy, expected));
  const TdxMeasurement& mrtd = verified.body().mrtd;
  Platform out{.measurement = {mrtd.begin(), mrtd.end()},
               .valid_until = verified.valid_until(),
               .facts = TdxFacts(verified)};
  out.facts.emplace_back("revocation", RevocationWords(verified.revocation_checked()));
  return out;
}

Status NotAccepted(EvidenceType type) {
  return Refuse("evidence-type-not-accepted", EvidenceTypeName(type),
                "a type that the policy has a section for");
}

Result<Platform> VerifyEvidence(const Evidence& evidence, const ReportData& expected, UnixTime now,
                                const VerifierOptions& options) {
  const Policy& policy = options.policy;
  switch (evidence.type) {
    case EvidenceType::kSevSnp:
      if (!policy.sev_snp) return NotAccepted(evidence.type);
      return VerifySnp(evidence, expected, now, {options.amd, options.collateral.amd, *policy.crls},
                       *policy.sev_snp);
    case EvidenceType::kTdx:
      if (!policy.tdx) return NotAccepted(evidence.type);
      return VerifyTdx(evidence, expected, now, options, *policy.tdx);
    case EvidenceType::kSimulated: {
      if (!options.simulated) {
        return Refuse("simulated-not-accepted", "evidence that anybody can make", "a real TEE's");
      }
      if (!policy.simulated) return NotAccepted(evidence.type);
      const std::vector<AmdCrl> crls = {{SnpProduct::kGenoa, options.simulated->crl}};
      return VerifySnp(evidence, expected, now, {options.simulated->roots, crls, *policy.crls},
                       PolicyOfSimulated(*policy.simulated));
    }
  }
  return NotAccepted(evidence.type);
}

}  // namespace

Result<Verifier> Verifier::Create(VerifierOptions options) {
  const Policy& policy = options.policy;
  if (!policy.sev_snp && !policy.tdx && !policy.simulated) {
    return Status(Code::kInvalidArgument, "the policy has no section for any evidence");
  }
  if (*policy.max_age_s < 1 || *policy.max_age_s > kMaxAgeS) {
    return Status(Code::kInvalidArgument,
                  "the policy's max_age_s must be between 1 and " + std::to_string(kMaxAgeS));
  }
  Verifier out;
  out.options_ = std::make_shared<const VerifierOptions>(std::move(options));
  return out;
}

Result<Verdict> Verifier::Verify(const Claim& claim, const Channel& channel, UnixTime now) const {
  return VerifyReportData(claim,
                          ReportDataFor({.role = channel.role,
                                         .type = claim.evidence.type,
                                         .nonce = channel.nonce,
                                         .exporter = channel.exporter,
                                         .cvm_key = channel.cvm_key,
                                         .peer_key = channel.peer_key,
                                         .context = DigestOf(claim.context)}),
                          now);
}

Result<Verdict> Verifier::VerifyReportData(const Claim& claim, const ReportData& expected,
                                           UnixTime now) const {
  TALARIA_ASSIGN_OR_RETURN(Platform platform,
                           VerifyEvidence(claim.evidence, expected, now, *options_));
  TALARIA_RETURN_IF_ERROR(CheckContext(claim.context, *options_->policy.context));
  Verdict out{.type = claim.evidence.type,
              .context = claim.context,
              .evidence_digest = DigestOf(claim.evidence),
              .measurement = std::move(platform.measurement),
              .valid_until = platform.valid_until,
              .facts = {{"evidence", std::string(EvidenceTypeName(claim.evidence.type))}}};
  std::ranges::move(platform.facts, std::back_inserter(out.facts));
  std::ranges::move(ContextFacts(claim.context), std::back_inserter(out.facts));
  out.facts.emplace_back("valid until", FormatUtc(platform.valid_until));
  out.facts.emplace_back("evidence digest", ToHex(out.evidence_digest));
  out.facts.emplace_back("policy digest", ToHex(options_->policy.digest));
  return out;
}

}  // namespace talaria::attest
