#include "talaria/attest/simulated/simulated_attester.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <vector>

#include "talaria/attest/simulated/keys.h"
#include "talaria/attest/snp/certificate_table.h"
#include "talaria/base/file.h"
#include "talaria/base/openssl.h"

namespace talaria::attest {
namespace {

constexpr char kReason[] = "simulated-keys";  // our own files: never seen outside a broken build

Status Broken(const char* what) {
  return Status(Code::kInternal, std::string("simulated TEE: ") + what);
}

Result<Certificate> FromPem(const char* pem) {
  TALARIA_ASSIGN_OR_RETURN(auto found, Certificate::FromPem(pem, 1, kReason));
  return std::move(found.front());
}

Certificate Fixed(const char* pem) {
  Result<Certificate> certificate = FromPem(pem);
  TALARIA_CHECK(certificate.ok());
  return *std::move(certificate);
}

// What a Genoa machine in good order says. Offsets: SNP firmware ABI, "ATTESTATION_REPORT
// Structure"; the parser's own tests hold them against genuine reports.
std::vector<uint8_t> Report(const SimulatedOptions& options, const ReportData& report_data) {
  std::vector<uint8_t> out(kSnpReportBytes);
  const auto put = [&out](size_t offset, Bytes field) {
    std::ranges::copy(field, out.begin() + static_cast<ptrdiff_t>(offset));
  };
  const auto put_u32 = [&](size_t offset, uint32_t value) {
    std::memcpy(out.data() + offset, &value, sizeof value);
  };
  const auto put_u64 = [&](size_t offset, uint64_t value) {
    std::memcpy(out.data() + offset, &value, sizeof value);
  };
  const bool other_chip = options.machine == SimulatedMachine::kOtherChip;
  const uint8_t chip = other_chip ? kSimulatedOtherChipByte : kSimulatedChipByte;
  constexpr uint8_t kOlderSnp = kSimulatedTcb.snp - 1;
  const bool older = options.machine == SimulatedMachine::kOlderTcb;
  const uint8_t snp = older ? kOlderSnp : kSimulatedTcb.snp;
  const uint8_t tcb[8] = {kSimulatedTcb.boot_loader, kSimulatedTcb.tee, 0, 0, 0, 0, snp,
                          kSimulatedTcb.microcode};
  const uint8_t cpuid[] = {0x19, 0x11, 0x01};
  const uint8_t firmware[] = {40, 55, 1};  // build, minor, major
  constexpr uint64_t kMitigations = 0x3f;

  put_u32(0x000, 5);  // VERSION
  put_u32(0x004, 1);  // GUEST_SVN
  // No SMT: a policy that forbids it is met as well as one that allows it.
  put_u64(0x008,
          0x1f | snp_guest_policy::kMustBeOne | (options.debug ? snp_guest_policy::kDebug : 0));
  put_u32(0x034, 1);  // SIGNATURE_ALGO: ECDSA P-384 with SHA-384
  put(0x038, tcb);    // CURRENT_TCB
  put_u64(0x040, snp_platform_info::kTsme | snp_platform_info::kEcc |
                     snp_platform_info::kAliasCheckComplete);
  if (options.machine == SimulatedMachine::kRevoked) put_u32(0x048, 1 << 2);  // SIGNING_KEY: VLEK
  put(0x050, report_data);
  put(0x090, options.measurement);
  put(0x140, std::vector<uint8_t>(32, 0x53));  // REPORT_ID
  put(0x160, std::vector<uint8_t>(32, 0xff));  // REPORT_ID_MA: no migration agent
  put(0x180, tcb);                             // REPORTED_TCB
  put(0x188, cpuid);
  put(0x1a0, std::vector<uint8_t>(64, chip));  // CHIP_ID
  put(0x1e0, tcb);                             // COMMITTED_TCB
  put(0x1e8, firmware);                        // CURRENT
  put(0x1ec, firmware);                        // COMMITTED
  put(0x1f0, tcb);                             // LAUNCH_TCB
  put_u64(0x1f8, kMitigations);                // LAUNCH_MIT_VECTOR
  put_u64(0x200, kMitigations);                // CURRENT_MIT_VECTOR
  return out;
}

// r and s of an ECDSA signature over what is signed of `report`, little-endian, into it.
Status Sign(EVP_PKEY* key, std::vector<uint8_t>& report) {
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  std::vector<uint8_t> der(static_cast<size_t>(EVP_PKEY_get_size(key)));
  size_t size = der.size();
  if (!context || EVP_DigestSignInit(context.get(), nullptr, EVP_sha384(), nullptr, key) != 1 ||
      EVP_DigestSign(context.get(), der.data(), &size, report.data(), kSnpSignedBytes) != 1) {
    return Broken("cannot sign");
  }
  const uint8_t* at = der.data();
  const Owned<ECDSA_SIG> signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)));
  if (!signature ||
      BN_bn2lebinpad(ECDSA_SIG_get0_r(signature.get()), report.data() + kSnpSignatureROffset,
                     kSnpSignatureNumberBytes) < 0 ||
      BN_bn2lebinpad(ECDSA_SIG_get0_s(signature.get()), report.data() + kSnpSignatureSOffset,
                     kSnpSignatureNumberBytes) < 0) {
    return Broken("cannot encode its signature");
  }
  return OkStatus();
}

// As a host hands it over (attest/snp/certificate_table.h).
std::vector<uint8_t> Table(const Guid& kind, Bytes vek, Bytes intermediate, Bytes ark) {
  const std::pair<Guid, Bytes> entries[] = {{kind, vek}, {kAskGuid, intermediate}, {kArkGuid, ark}};
  constexpr size_t kEntryBytes = 24;
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  size_t offset = kEntryBytes * (std::size(entries) + 1);
  for (const auto& [guid, der] : entries) {
    writer.Raw(guid);
    writer.U32(static_cast<uint32_t>(offset));
    writer.U32(static_cast<uint32_t>(der.size()));
    offset += der.size();
  }
  out.resize(out.size() + kEntryBytes);
  for (const auto& [guid, der] : entries) writer.Raw(der);
  return out;
}

}  // namespace

struct SimulatedAttester::Impl {
  SimulatedOptions options;
  std::vector<uint8_t> table;
  Owned<EVP_PKEY> key;
};

SimulatedAttester::SimulatedAttester(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
SimulatedAttester::~SimulatedAttester() = default;

Result<std::unique_ptr<SimulatedAttester>> SimulatedAttester::Create(
    const SimulatedOptions& options) {
  const bool revoked = options.machine == SimulatedMachine::kRevoked;
  const char* vek_pem = simulated::kVcekPem;
  if (options.machine == SimulatedMachine::kOlderTcb) vek_pem = simulated::kOlderTcbVcekPem;
  if (options.machine == SimulatedMachine::kOtherChip) vek_pem = simulated::kOtherChipVcekPem;
  if (revoked) vek_pem = simulated::kRevokedVlekPem;
  const auto vek = FromPem(vek_pem);
  const auto intermediate = FromPem(revoked ? simulated::kAsvkPem : simulated::kAskPem);
  const auto ark = FromPem(simulated::kArkPem);
  const Owned<BIO> pem(BIO_new_mem_buf(simulated::kVcekPrivateKeyPem, -1));
  Owned<EVP_PKEY> key(pem ? PEM_read_bio_PrivateKey(pem.get(), nullptr, nullptr, nullptr)
                          : nullptr);
  if (!vek.ok() || !intermediate.ok() || !ark.ok() || !key) return Broken("its keys do not parse");
  return std::unique_ptr<SimulatedAttester>(new SimulatedAttester(std::make_unique<const Impl>(Impl{
      options, Table(revoked ? kVlekGuid : kVcekGuid, vek->der(), intermediate->der(), ark->der()),
      std::move(key)})));
}

Result<Evidence> SimulatedAttester::Attest(const ReportData& report_data, Deadline) {
  Evidence evidence;
  evidence.type = EvidenceType::kSimulated;
  evidence.report = Report(impl_->options, report_data);
  TALARIA_RETURN_IF_ERROR(Sign(impl_->key.get(), evidence.report));
  evidence.certificates = impl_->table;
  return evidence;
}

const SnpRoots& SimulatedRoots() {
  static const SnpRoots roots = [] {
    const Certificate ark = Fixed(simulated::kArkPem);
    return SnpRoots{{{.product = SnpProduct::kGenoa,
                      .ark_spki_sha256 = ark.SpkiSha256(),
                      .ark = ark,
                      .ask = Fixed(simulated::kAskPem),
                      .asvk = Fixed(simulated::kAsvkPem)}}};
  }();
  return roots;
}

const Crl& SimulatedCrl() {
  static const Crl crl = [] {
    const Owned<BIO> pem(BIO_new_mem_buf(simulated::kCrlPem, -1));
    const Owned<X509_CRL> parsed(pem ? PEM_read_bio_X509_CRL(pem.get(), nullptr, nullptr, nullptr)
                                     : nullptr);
    uint8_t* der = nullptr;
    const int size = parsed ? i2d_X509_CRL(parsed.get(), &der) : -1;
    TALARIA_CHECK(size > 0);
    Result<Crl> found = Crl::FromDer({der, static_cast<size_t>(size)}, kReason);
    OPENSSL_free(der);
    TALARIA_CHECK(found.ok());
    return *std::move(found);
  }();
  return crl;
}

Result<SimulatedMeasurement> MeasureFile(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const Fd fd, OpenForReading(path));
  TALARIA_ASSIGN_OR_RETURN(const uint64_t size, FileSize(fd));
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha384(), nullptr) != 1) {
    return Broken("no SHA-384");
  }
  std::vector<uint8_t> block(1 << 20);
  for (uint64_t at = 0; at < size; at += block.size()) {
    const MutableBytes part(block.data(), std::min<uint64_t>(block.size(), size - at));
    TALARIA_RETURN_IF_ERROR(ReadAt(fd, at, part).Annotate(path));
    if (EVP_DigestUpdate(context.get(), part.data(), part.size()) != 1) return Broken("SHA-384");
  }
  SimulatedMeasurement out;
  if (EVP_DigestFinal_ex(context.get(), out.data(), nullptr) != 1) return Broken("SHA-384");
  return out;
}

}  // namespace talaria::attest
