// An "AMD" of our own: root, intermediates, endorsement keys and reports that have the genuine
// form and anything in them. Its private keys are in this repository, so whoever trusts its roots
// trusts everybody: only tests and the simulated TEE link it. Single-threaded.
#ifndef TALARIA_ATTEST_TESTING_SNP_AUTHORITY_H_
#define TALARIA_ATTEST_TESTING_SNP_AUTHORITY_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "talaria/attest/snp/report.h"
#include "talaria/attest/snp/roots.h"
#include "talaria/attest/x509.h"

namespace talaria::attest {

// How a certificate is signed; all but the first are wrong in an AMD chain.
enum class RsaScheme { kPssSha384, kPssSha256, kPssMgf1Sha256, kPssSalt32, kPkcs1Sha384 };

struct SnpAuthorityKeys {  // private keys, PEM
  std::string ark;
  std::string ask;
  std::string asvk;
};
// RSA-4096, fixed: making them anew takes seconds.
const SnpAuthorityKeys& PublicSnpAuthorityKeys();
std::string GenerateRsaKeyPem(int bits);
std::string GenerateEcKeyPem(Curve curve);

struct SnpCaOptions {   // of one CA certificate; empty texts: as AMD's
  std::string subject;  // common name
  RsaScheme scheme = RsaScheme::kPssSha384;
  uint64_t serial = 0;  // 0: a number of its own
  std::optional<UnixTime> not_before{}, not_after{};
};

struct SnpAuthorityOptions {
  SnpProduct product = SnpProduct::kMilan;
  SnpAuthorityKeys keys = PublicSnpAuthorityKeys();
  UnixTime not_before = 1577836800;  // 2020-01-01
  UnixTime not_after = 4102444800;   // 2100-01-01
  SnpCaOptions ark{}, ask{}, asvk{};
};

struct SnpVekOptions {
  SnpSigningKey kind = SnpSigningKey::kVcek;
  TcbVersion tcb;
  std::array<uint8_t, 64> chip_id{};     // a VCEK of Turin takes the first 8 bytes
  std::string csp_id = "CN=cloud.test";  // VLEK only
  UnixTime not_before = 1577836800;
  UnixTime not_after = 4102444800;
  std::string key_pem;  // private, EC; empty: a new P-384 one
  std::string subject;  // common name; empty: SEV-VCEK or SEV-VLEK
  RsaScheme scheme = RsaScheme::kPssSha384;
  bool other_issuer = false;  // a VCEK from the ASVK, a VLEK from the ASK
  // By OID in dotted form; the extension's content. nullopt leaves a usual one out.
  std::map<std::string, std::optional<std::vector<uint8_t>>> extensions;
  std::string duplicated_extension;  // OID of one that comes twice
};

struct SnpVek {
  std::vector<uint8_t> der;
  std::string key_pem;  // private
};

class SnpAuthority {
 public:
  // kInvalidArgument for keys that are not RSA private keys in PEM.
  static Result<SnpAuthority> Create(SnpAuthorityOptions options);

  SnpProductRoots product_roots() const;
  SnpRoots roots() const { return {{product_roots()}}; }
  const Certificate& ark() const { return *ark_; }
  const Certificate& ask() const { return *ask_; }
  const Certificate& asvk() const { return *asvk_; }

  // kInvalidArgument for a key that is not one.
  Result<SnpVek> IssueVek(const SnpVekOptions& options) const;
  // DER. Lists `revoked_serials` of what the ARK issued.
  std::vector<uint8_t> MakeCrl(UnixTime this_update, std::optional<UnixTime> next_update,
                               const std::vector<uint64_t>& revoked_serials) const;
  // The same, but signed with the ASK's key.
  std::vector<uint8_t> MakeCrlOfAsk(UnixTime this_update, UnixTime next_update) const;

 private:
  explicit SnpAuthority(SnpAuthorityOptions options) : options_(std::move(options)) {}
  SnpAuthorityOptions options_;
  std::optional<Certificate> ark_, ask_, asvk_;
};

inline constexpr uint64_t kSnpAskSerial = 0x10001;
inline constexpr uint64_t kSnpAsvkSerial = 0x10101;

// 1184 bytes with no signature yet. ParseSnpReport gives `report` back, if it is a good one.
std::vector<uint8_t> EncodeSnpReport(const SnpReport& report);
// Writes r and s over [0, 0x2a0) into `report` (1184 bytes).
void SignSnpReport(std::vector<uint8_t>& report, const SnpVek& vek);
// The host's table of certificates (GHCB) with that leaf and both CA certificates.
std::vector<uint8_t> MakeCertificateTable(const SnpAuthority& authority, SnpSigningKey kind,
                                          Bytes vek_der);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TESTING_SNP_AUTHORITY_H_
