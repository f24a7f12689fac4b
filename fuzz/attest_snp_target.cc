// SNP evidence: what a guest sends, and what its host put beside it. The seeds are genuine ones of
// testdata/attestation.
#include <algorithm>

#include "fuzz/targets.h"
#include "talaria/attest/refusal.h"
#include "talaria/attest/snp/certificate_table.h"
#include "talaria/attest/snp/report.h"
#include "talaria/attest/snp/vek.h"
#include "talaria/attest/testing/snp_authority.h"

namespace talaria::fuzz {
namespace {

// Every refusal has its reason.
template <class T>
bool Accepted(const Result<T>& result) {
  TALARIA_CHECK(result.ok() || !attest::ReasonOf(result.status()).empty());
  return result.ok();
}

bool LiesIn(Bytes outer, Bytes inner) {
  return inner.empty() || (inner.data() >= outer.data() &&
                           inner.data() + inner.size() <= outer.data() + outer.size());
}

}  // namespace

bool SnpReport(Bytes input) {
  const auto report = attest::ParseSnpReport(input, attest::SnpProduct::kMilan);
  if (!Accepted(report)) return false;
  const std::vector<uint8_t> again = attest::EncodeSnpReport(*report);
  TALARIA_CHECK(std::equal(again.begin(), again.begin() + attest::kSnpSignedBytes, input.begin()));
  return true;
}

bool SnpCertificateTable(Bytes input) {
  const auto table = attest::ParseCertificateTable(input);
  if (!Accepted(table)) return false;
  TALARIA_CHECK(LiesIn(input, table->vcek) && LiesIn(input, table->vlek));
  // A guest's host may put anything there.
  for (const Bytes leaf : {table->vcek, table->vlek}) Accepted(attest::ParseVek(leaf));
  return true;
}

bool SnpVek(Bytes input) {
  const auto vek = attest::ParseVek(input);
  if (!Accepted(vek)) return false;
  const size_t size = vek->kind == attest::SnpSigningKey::kVlek    ? 0
                      : vek->product == attest::SnpProduct::kTurin ? 8
                                                                   : 64;
  TALARIA_CHECK(vek->hardware_id.size() == size && vek->csp_id.empty() == (size != 0));
  TALARIA_CHECK(vek->product == attest::SnpProduct::kTurin || vek->tcb.fmc == 0);
  TALARIA_CHECK(std::ranges::equal(vek->certificate.der(), input));
  return true;
}

}  // namespace talaria::fuzz
