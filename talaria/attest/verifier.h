// The whole judgement, for the cloud, the client and whoever holds a receipt: format, signatures,
// revocation, TCB, policy, context, and that the evidence was made for this very channel.
//
//   verifier                                   CVM
//     nonce                             ---->    REPORT_DATA = SHA-512(... nonce, exporter, keys,
//                                                              context)
//                                       <----  claim = context, evidence
//     Verify(claim, what it saw itself) -> Verdict
//
// No network, no clock, no file: collateral and time are given.
#ifndef TALARIA_ATTEST_VERIFIER_H_
#define TALARIA_ATTEST_VERIFIER_H_

#include <memory>
#include <optional>
#include <vector>

#include "talaria/attest/binding.h"
#include "talaria/attest/claim.h"
#include "talaria/attest/collateral_files.h"
#include "talaria/attest/facts.h"
#include "talaria/attest/policy.h"
#include "talaria/attest/snp/roots.h"
#include "talaria/attest/tdx/intel_root.h"
#include "talaria/attest/x509.h"

namespace talaria::attest {

// Of one connection, as the verifier chose and saw it itself.
struct Channel {
  Role role;
  std::array<uint8_t, kNonceBytes> nonce;
  std::array<uint8_t, kExporterBytes> exporter;
  Digest cvm_key;   // SHA-256 of the SPKI that the CVM proved to have
  Digest peer_key;  // the verifier's own; zero without one
};

struct Verdict {
  EvidenceType type;
  Context context;
  Digest evidence_digest;            // DigestOf(Evidence)
  std::vector<uint8_t> measurement;  // MEASUREMENT or MRTD, 48 bytes
  UnixTime valid_until;              // of the certificates and collateral behind it
  Facts facts;
};

// What simulated evidence verifies under. From attest/simulated/: the verifier does not link it.
struct SimulatedTrust {
  SnpRoots roots;
  Crl crl;
};

struct VerifierOptions {
  Policy policy;
  Collateral collateral = {};
  SnpRoots amd = PinnedAmdRoots();
  IntelRoot intel = PinnedIntelRoot();
  // Empty unless somebody asked for the simulated TEE on the command line. Without it simulated
  // evidence is refused, whatever the policy says ("simulated-not-accepted").
  std::optional<SimulatedTrust> simulated = std::nullopt;
};

// Immutable, thread-safe, cheap to copy.
class Verifier {
 public:
  // kInvalidArgument: no section for any evidence, or a max_age_s out of its range.
  static Result<Verifier> Create(VerifierOptions options);
  // First who signed the evidence, then whether the machine and the guest are accepted and the
  // report data is the expected one, then the context: a refusal of a context speaks of something
  // attested. Refusals: "evidence-type-not-accepted", "simulated-not-accepted",
  // "tdx-collateral-missing" (none of the quote's FMSPC), and those of VerifySnpReportWithTable,
  // CheckSnpPolicy, VerifyTdxQuote, CheckTdxPolicy and CheckContext.
  Result<Verdict> Verify(const Claim& claim, const Channel& channel, UnixTime now) const;
  // The same with the report data that is expected, for evidence out of its channel (receipts).
  Result<Verdict> VerifyReportData(const Claim& claim, const ReportData& expected,
                                   UnixTime now) const;
  const Policy& policy() const { return options_->policy; }

 private:
  Verifier() = default;
  std::shared_ptr<const VerifierOptions> options_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_VERIFIER_H_
