// What the commands of talaria do, apart from how their options are read.
#ifndef APPS_CLIENT_COMMANDS_H_
#define APPS_CLIENT_COMMANDS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/client/attested_peer.h"
#include "talaria/client/chat.h"
#include "talaria/client/proxy.h"

namespace CLI {
class App;
}

namespace talaria {

// Which CVM, and whether to believe it.
struct PeerArguments {
  std::string url, policy;
  std::string collateral;  // folder; empty: none
  std::string token_file;  // empty: no token is sent
  std::string client_key;  // PEM file of a TLS key; empty: a new one for this run
  std::string receipts;    // folder for a copy of every answer with its receipt; empty: none
  int max_age_s = 0;       // 0: as the policy says
  bool insecure_simulated_tee = false;
};
// Of policy, collateral and the flag.
Result<attest::Verifier> MakeVerifier(const PeerArguments& arguments);
// Nothing is connected yet. kInvalidArgument, kNotFound, kUnsupported (a simulated TEE in a build
// without one), and those of the files.
Result<std::unique_ptr<client::AttestedPeer>> MakePeer(const PeerArguments& arguments);
// Without the end of its line; empty for an empty path. Warns where others can read the file.
Result<std::string> ReadToken(const std::string& path);

// Each prints its result on standard output.
Status RunVerify(const PeerArguments& arguments, bool json, const std::string& save_claim);
// Until SIGINT or SIGTERM. kUntrusted when the CVM is there and is not believed at the start.
Status RunProxy(const PeerArguments& arguments, client::ProxyOptions options);
// On the terminal, or a line of standard input for each question.
Status RunChat(const PeerArguments& arguments, client::ChatOptions options);

struct ReceiptArguments {
  std::string path = "/v1/chat/completions", request;  // the route; the file with the body
  std::string folder;                                  // for the copy, a new one
};
// One request on a connection of its own; its answer and the receipt are kept in the folder.
Status RunReceiptGet(const PeerArguments& arguments, const ReceiptArguments& receipt);
// Offline.
Status RunReceiptVerify(const PeerArguments& arguments, const std::string& folder, bool json);

struct PolicyInitArguments {
  std::string from_evidence;  // a CVM's URL or a file; empty: the values below
  std::string type, measurement, model, configuration, tenant_key;
  std::string release, builder_key;  // instead of the measurement, or of the evidence's
  std::string client_key;
  std::string out;  // empty: standard output
};
Status RunPolicyInit(const PolicyInitArguments& arguments);
Status RunPolicyCheck(const std::string& path);
Status RunPolicyExplain(const std::string& path);
Status RunImageMeasure(const std::string& path);
Status RunKeyInit(const std::string& path);

struct ReleaseSignArguments {
  std::string key, name, version, date;  // an empty date: today
  std::vector<std::string> measurements, mrtd, simulated;
  std::array<std::vector<std::string>, 4> rtmr;
};
struct ReleaseArguments {
  std::string file, builder_key;
  ReleaseSignArguments sign;
};
// The commands of `talaria release`.
void AddRelease(CLI::App& program, ReleaseArguments& release);
Status RunReleaseKeygen(const std::string& path);
Status RunReleaseSign(const ReleaseArguments& arguments);
Status RunReleaseVerify(const ReleaseArguments& arguments);

struct CollateralFetchArguments {
  std::string folder;
  std::vector<std::string> evidence, products, fmspcs;
  std::string pck_ca = "platform";
  std::string kds, pccs;  // empty: the vendors' own
  int timeout_s = 30;
};
// The commands of `talaria collateral`.
void AddCollateral(CLI::App& program, CollateralFetchArguments& fetch);
Status RunCollateralShow(const std::string& folder);
// What fails leaves the folder as it was; the rest is renewed all the same.
Status RunCollateralFetch(const CollateralFetchArguments& arguments);

Status RunTenantInit(const std::string& path);
struct TenantIssueArguments {
  std::string key, user, client_public_key;
  int days = 30;
  uint32_t requests_per_minute = 60;
  uint64_t tokens_per_day = 1'000'000;
  bool unlimited_tokens = false;
  uint16_t concurrent_requests = 4;
};
Status RunTenantIssue(const TenantIssueArguments& arguments);
struct TenantRevokeArguments {
  std::string key, list;
  std::vector<std::string> ids;  // 32 hexadecimal digits each
};
Status RunTenantRevoke(const TenantRevokeArguments& arguments);

}  // namespace talaria

#endif  // APPS_CLIENT_COMMANDS_H_
