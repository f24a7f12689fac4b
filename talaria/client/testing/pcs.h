// Intel's provisioning service, or a caching server, with genuine collateral, for tests.
#ifndef TALARIA_CLIENT_TESTING_PCS_H_
#define TALARIA_CLIENT_TESTING_PCS_H_

#include <string>
#include <vector>

#include "talaria/attest/tdx/testing.h"
#include "talaria/client/testing/https_server.h"

namespace talaria::client::testing {

inline constexpr char kPcsQe[] = "/tdx/certification/v4/qe/identity";
inline constexpr char kPcsPckCrl[] = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der";
inline constexpr char kPcsRootCrl[] = "/sgx/certification/v4/rootcacrl";
inline std::string PcsTcb(const std::string& fmspc) {
  return "/tdx/certification/v4/tcb?fmspc=" + fmspc;
}

inline std::string Text(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

inline std::string UrlEncoded(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = isalnum(static_cast<unsigned char>(c)) != 0 || c == '-';
    out += plain ? std::string(1, c) : "%" + ToHex(AsBytes({&c, 1}));
  }
  return out;
}

// The CA and the root, of a genuine quote's chain.
inline std::string CaChain(const std::string& vector) {
  const auto quote = attest::ParseTdxQuote(attest::TdxVector(vector));
  EXPECT_TRUE(quote.ok());
  const std::string& pem = quote->pck_chain_pem;
  return pem.substr(pem.find("-----BEGIN", 1),
                    pem.rfind("-----END") + 26 - pem.find("-----BEGIN", 1));
}

// All that a caching server says of one platform.
struct Pcs {
  attest::TdxCollateral files;
  std::string ca_chain, fmspc;  // upper case, as Intel writes it
};
inline Pcs PcsOf(const std::string& vector, const std::string& fmspc) {
  return {attest::TdxVectorCollateral(vector), CaChain(vector), fmspc};
}

inline void ServePcs(HttpsServer& server, const Pcs& pcs) {
  const auto signed_json = [](const char* name, const std::string& object,
                              const std::string& signature) {
    return "{\"" + std::string(name) + "\":" + object + ",\"signature\":\"" + signature + "\"}";
  };
  const attest::TdxCollateral& files = pcs.files;
  server.Serve(PcsTcb(pcs.fmspc),
               WholeAnswer(signed_json("tcbInfo", files.tcb_info, files.tcb_info_signature_hex),
                           {{"TCB-Info-Issuer-Chain", UrlEncoded(files.tcb_info_chain_pem)}}));
  server.Serve(
      kPcsQe,
      WholeAnswer(
          signed_json("enclaveIdentity", files.qe_identity, files.qe_identity_signature_hex),
          {{"SGX-Enclave-Identity-Issuer-Chain", UrlEncoded(files.qe_identity_chain_pem)}}));
  server.Serve(kPcsPckCrl, WholeAnswer(Text(files.pck_crl),
                                       {{"SGX-PCK-CRL-Issuer-Chain", UrlEncoded(pcs.ca_chain)}}));
  server.Serve(kPcsRootCrl, WholeAnswer(ToHex(files.root_crl)));  // as caching servers send it
}

}  // namespace talaria::client::testing

#endif  // TALARIA_CLIENT_TESTING_PCS_H_
