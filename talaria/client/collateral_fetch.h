// What to ask of AMD's and Intel's servers, and what their answers hold: the bytes for
// attest::CollateralUpdate, which judges them. Forms of URLs and answers: AMD's KDS interface
// specification, and Intel's provisioning certification service, version 4.
#ifndef TALARIA_CLIENT_COLLATERAL_FETCH_H_
#define TALARIA_CLIENT_COLLATERAL_FETCH_H_

#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/collateral_files.h"
#include "talaria/attest/evidence.h"
#include "talaria/client/fetcher.h"

namespace talaria::client {

enum class PckCa { kPlatform, kProcessor };  // which of Intel's CAs issued the PCK certificate

// What a folder should have.
struct CollateralWish {
  struct Tdx {
    attest::Fmspc fmspc;
    PckCa ca;
    bool operator==(const Tdx&) const = default;
  };
  std::vector<attest::SnpProduct> amd;
  std::vector<Tdx> tdx;
};
// What is needed to verify it, by what it says itself: nothing is verified. kUntrusted: it is not
// evidence; kInvalidArgument: a simulated TEE, which needs nothing.
Result<CollateralWish> WishOf(const attest::Evidence& evidence);
// The same again.
CollateralWish WishOf(const attest::Collateral& held);

// No '/' at the end.
struct VendorServers {
  std::string kds = "https://kdsintf.amd.com";
  std::string pcs = "https://api.trustedservices.intel.com";
  // The root's list is not the service's; a caching server (PCCS) has it under a path of its own.
  std::string root_crl = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";
  void UsePccs(const std::string& url) {
    pcs = url;
    root_crl = url + "/sgx/certification/v4/rootcacrl";
  }
};

// DER. Those of Fetcher::Get.
Result<std::vector<uint8_t>> FetchAmdCrl(Fetcher& fetcher, const VendorServers& servers,
                                         attest::SnpProduct product);

struct FetchedTdx {
  attest::TdxCollateral files;
  std::string pck_ca_chain_pem;  // the CA and the root
};
// Those of Fetcher::Get; kUntrusted "tdx-collateral-response", "tdx-issuer-chain" (a header with a
// chain is missing, or not one).
Result<FetchedTdx> FetchTdx(Fetcher& fetcher, const VendorServers& servers,
                            const CollateralWish::Tdx& wish);

// The value of a header such as TCB-Info-Issuer-Chain: PEM, URL-encoded. kUntrusted
// "tdx-issuer-chain": longer than 32 KiB, a '%' without two digits, or anything but printable
// characters and ends of lines.
Result<std::string> DecodeIssuerChain(std::string_view header);
// A list as DER, which caching servers send as hexadecimal digits, in either case.
std::vector<uint8_t> DecodeListBody(std::vector<uint8_t> body);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_COLLATERAL_FETCH_H_
