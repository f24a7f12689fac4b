// Policies, images and keys: what a user prepares.
#include <cstdio>
#include <optional>

#include "apps/client_commands.h"
#include "talaria/attest/policy_file.h"
#include "talaria/base/file.h"
#include "talaria/base/log.h"
#include "talaria/client/policy_draft.h"
#include "talaria/client/release.h"
#ifdef TALARIA_SIMULATED_TEE
#include "talaria/attest/simulated/simulated_attester.h"
#endif

namespace talaria {
namespace {

Result<attest::EvidenceType> ParseType(const std::string& text) {
  for (const auto type : {attest::EvidenceType::kSevSnp, attest::EvidenceType::kTdx,
                          attest::EvidenceType::kSimulated}) {
    if (attest::EvidenceTypeName(type) == text) return type;
  }
  return Status(Code::kInvalidArgument, "--type must be sev-snp, tdx or simulated");
}

Status ParseHex(const std::string& option, const std::string& text, MutableBytes out) {
  if (FromHex(text, out)) return OkStatus();
  return Status(Code::kInvalidArgument, option + " must be " + std::to_string(2 * out.size()) +
                                            " lower-case hexadecimal digits");
}

Result<client::PolicyDraft> DraftOfValues(const PolicyInitArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(const attest::EvidenceType type, ParseType(arguments.type));
  client::KnownValues known{
      .type = type, .measurement = {}, .model_identity = {}, .configuration = {}, .tenant_key = {}};
  // A release's take their place.
  if (arguments.release.empty())
    TALARIA_RETURN_IF_ERROR(ParseHex("--measurement", arguments.measurement, known.measurement));
  TALARIA_RETURN_IF_ERROR(ParseHex("--model", arguments.model, known.model_identity));
  TALARIA_RETURN_IF_ERROR(
      ParseHex("--configuration", arguments.configuration, known.configuration));
  TALARIA_RETURN_IF_ERROR(ParseHex("--tenant-key", arguments.tenant_key, known.tenant_key));
  return client::DraftFromValues(known);
}

Result<client::PolicyDraft> DraftOfEvidence(const PolicyInitArguments& arguments) {
  const std::string& from = arguments.from_evidence;
  const auto server = client::ParseServer(from);
  if (!server.ok()) {
    TALARIA_ASSIGN_OR_RETURN(const attest::Claim claim, client::ReadClaim(from));
    return client::DraftFromClaim(claim);
  }
  TALARIA_ASSIGN_OR_RETURN(const wire::TlsKey key,
                           arguments.client_key.empty()
                               ? wire::TlsKey::Generate()
                               : wire::TlsKey::FromPemFile(arguments.client_key));
  client::ServerOptions options;
  options.endpoint = *server;
  TALARIA_ASSIGN_OR_RETURN(const client::UnverifiedClaim fetched,
                           client::SecureConnection::FetchUnverified(options, key));
  return client::DraftFromClaim(fetched.claim);
}

}  // namespace

Status RunPolicyInit(const PolicyInitArguments& arguments) {
  std::optional<client::Release> release;
  tenant::PublicKey builder{};
  if (!arguments.release.empty()) {
    if (arguments.builder_key.empty())
      return Status(Code::kInvalidArgument, "whose release? Give --builder-key FILE");
    TALARIA_ASSIGN_OR_RETURN(builder, tenant::PublicKeyFromPemFile(arguments.builder_key));
    TALARIA_ASSIGN_OR_RETURN(release, client::LoadRelease(arguments.release, builder));
  }
  TALARIA_ASSIGN_OR_RETURN(client::PolicyDraft draft, arguments.from_evidence.empty()
                                                          ? DraftOfValues(arguments)
                                                          : DraftOfEvidence(arguments));
  if (release) TALARIA_RETURN_IF_ERROR(client::ApplyRelease(*release, builder, draft));
  const std::string text = draft.Text();
  if (arguments.out.empty()) {
    std::fputs(text.c_str(), stdout);
  } else {
    TALARIA_ASSIGN_OR_RETURN(const Fd file, CreateFile(arguments.out));
    TALARIA_RETURN_IF_ERROR(WriteAt(file, 0, AsBytes(text)));
  }
  if (!draft.remarks.unconfirmed.empty()) {
    LogWarning(
        "nobody has verified what is listed under `unconfirmed`; the policy is refused "
        "until you have compared it and taken it off the list");
  }
  return OkStatus();
}

Status RunPolicyCheck(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const attest::Policy policy, attest::LoadPolicy(path));
  std::printf("good\ndigest     %s\n", ToHex(policy.digest).c_str());
  return OkStatus();
}

Status RunPolicyExplain(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const attest::Policy policy, attest::LoadPolicy(path));
  std::fputs(attest::ExplainPolicy(policy).c_str(), stdout);
  return OkStatus();
}

Status RunImageMeasure(const std::string& path) {
#ifdef TALARIA_SIMULATED_TEE
  TALARIA_ASSIGN_OR_RETURN(const attest::SimulatedMeasurement measurement,
                           attest::MeasureFile(path));
  std::printf("%s\n", ToHex(measurement).c_str());
  std::fputs(
      "This is the SHA-384 of the file: what the simulated TEE reports as its measurement.\n"
      "It is not what SEV-SNP or TDX measure; doc/attestation.md names the tools for their "
      "images.\n",
      stderr);
  return OkStatus();
#else
  return Status(Code::kUnsupported,
                path +
                    ": this program was built without the simulated TEE, and images of SEV-SNP "
                    "and TDX are measured by the tools that doc/attestation.md names");
#endif
}

Status RunKeyInit(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const wire::TlsKey key, wire::TlsKey::Generate());
  TALARIA_RETURN_IF_ERROR(key.ToPemFile(path));
  std::fputs(key.PublicKeyPem().c_str(), stdout);
  return OkStatus();
}

}  // namespace talaria
