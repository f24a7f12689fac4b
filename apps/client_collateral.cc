// Collateral: what a folder has, and fetching it from AMD and Intel. The only command that asks
// anybody else than a CVM for anything.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>

#include "apps/client_commands.h"
#include "talaria/attest/collateral_update.h"
#include "talaria/base/log.h"
#include "talaria/client/collateral_fetch.h"
#include "talaria/client/policy_draft.h"

namespace talaria {
namespace {

using client::CollateralWish;

constexpr const char* kChange[] = {"new", "renewed", "unchanged"};

void PrintExpiries(const std::vector<attest::CollateralExpiry>& all) {
  std::printf("%-24s %-40s %s\n", "good until", "file", "what");
  for (const attest::CollateralExpiry& each : all) {
    std::printf("%-24s %-40s %s\n", attest::FormatUtc(each.next_update).c_str(), each.file.c_str(),
                each.what.c_str());
  }
}

template <class T>
void AddOnce(std::vector<T>& to, const T& value) {
  if (std::ranges::find(to, value) == to.end()) to.push_back(value);
}

Status AddNamed(const CollateralFetchArguments& arguments, CollateralWish& wish) {
  for (const std::string& name : arguments.products) {
    bool known = false;
    for (const auto product :
         {attest::SnpProduct::kMilan, attest::SnpProduct::kGenoa, attest::SnpProduct::kTurin}) {
      if (name != attest::SnpProductName(product)) continue;
      known = true;
      AddOnce(wish.amd, product);
    }
    if (!known) return Status(Code::kInvalidArgument, "--product must be Milan, Genoa or Turin");
  }
  const auto ca =
      arguments.pck_ca == "processor" ? client::PckCa::kProcessor : client::PckCa::kPlatform;
  for (std::string text : arguments.fmspcs) {
    std::ranges::transform(text, text.begin(), [](char c) {
      return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    attest::Fmspc fmspc;
    if (!FromHex(text, fmspc))
      return Status(Code::kInvalidArgument, "--fmspc must be 12 hexadecimal digits");
    AddOnce(wish.tdx, {fmspc, ca});
  }
  return OkStatus();
}

// What the command line names; if it names nothing, what the folder has.
Result<CollateralWish> WishOf(const CollateralFetchArguments& arguments,
                              const attest::Collateral& held) {
  CollateralWish wish;
  for (const std::string& path : arguments.evidence) {
    TALARIA_ASSIGN_OR_RETURN(const attest::Claim claim, client::ReadClaim(path));
    auto needed = client::WishOf(claim.evidence);
    if (!needed.ok()) return needed.status().Annotate(path);
    for (const auto product : needed->amd) AddOnce(wish.amd, product);
    for (const auto& platform : needed->tdx) AddOnce(wish.tdx, platform);
  }
  TALARIA_RETURN_IF_ERROR(AddNamed(arguments, wish));
  if (wish.amd.empty() && wish.tdx.empty()) wish = client::WishOf(held);
  if (wish.amd.empty() && wish.tdx.empty()) {
    return Status(Code::kInvalidArgument,
                  "what to fetch? The folder has nothing to renew: give --evidence FILE (as "
                  "`talaria verify --save-claim` writes it), --product or --fmspc");
  }
  return wish;
}

Result<client::VendorServers> ServersOf(const CollateralFetchArguments& arguments) {
  client::VendorServers servers;
  for (const std::string* url : {&arguments.kds, &arguments.pccs}) {
    if (!url->empty() && !url->starts_with("https://"))
      return Status(Code::kInvalidArgument, *url + " is not https://HOST[:PORT][/PATH]");
  }
  const auto trimmed = [](std::string url) {
    while (url.ends_with('/')) url.pop_back();
    return url;
  };
  if (!arguments.kds.empty()) servers.kds = trimmed(arguments.kds);
  if (!arguments.pccs.empty()) servers.UsePccs(trimmed(arguments.pccs));
  return servers;
}

// Says how each has gone, and goes on after a failure.
class Report {
 public:
  void Add(const std::string& path, const Result<attest::CollateralChange>& change) {
    ++count_;
    if (change.ok()) {
      std::printf("%-10s %s\n", kChange[static_cast<int>(*change)], path.c_str());
      return;
    }
    LogError(path + ": " + change.status().message());
    if (failures_++ == 0) code_ = change.status().code();
  }
  Status Finish() const {
    if (failures_ == 0) return OkStatus();
    return Status(code_, std::to_string(failures_) + " of " + std::to_string(count_) +
                             " could not be renewed; the folder has what it had of them");
  }

 private:
  int count_ = 0, failures_ = 0;
  Code code_ = Code::kOk;
};

}  // namespace

void AddCollateral(CLI::App& program, CollateralFetchArguments& fetch) {
  CLI::App* group = program.add_subcommand("collateral", "What AMD and Intel publish");
  group->require_subcommand(1);
  CLI::App* show = group->add_subcommand("show", "Say what a folder has, and until when");
  show->add_option("folder", fetch.folder, "The folder")->required();
  CLI::App* command = group->add_subcommand(
      "fetch", "Fetch revocation lists and TCB levels from AMD and Intel into a folder");
  command->add_option("folder", fetch.folder, "The folder; made if it is not there")->required();
  command
      ->add_option(
          "--evidence", fetch.evidence,
          "What this CVM's evidence needs: a file that `talaria verify --save-claim` wrote")
      ->type_name("FILE");
  command->add_option("--product", fetch.products, "AMD's Milan, Genoa or Turin")
      ->type_name("NAME");
  command->add_option("--fmspc", fetch.fmspcs, "Of an Intel platform, 12 hexadecimal digits")
      ->type_name("HEX");
  command
      ->add_option("--pck-ca", fetch.pck_ca,
                   "Which of Intel's CAs issued the certificates of the platforms of --fmspc")
      ->check(CLI::IsMember({"platform", "processor"}))
      ->capture_default_str();
  command->add_option("--kds", fetch.kds, "A caching server instead of AMD's own")
      ->envname("TALARIA_KDS")
      ->type_name("URL");
  command->add_option("--pccs", fetch.pccs, "A caching server (PCCS) instead of Intel's own")
      ->envname("TALARIA_PCCS")
      ->type_name("URL");
  command->add_option("--timeout", fetch.timeout_s, "Of one file")
      ->check(CLI::Range(1, 600))
      ->type_name("S")
      ->capture_default_str();
  command->footer(
      "Without --evidence, --product and --fmspc it renews what the folder has. All that comes is "
      "verified under AMD's and\nIntel's roots, and nothing older takes the place of something "
      "newer; what does not pass leaves the folder as it was.\nServers are verified against the "
      "system's certificates, or those that SSL_CERT_FILE names.\nExamples:\n"
      "  talaria collateral fetch collateral/ --product Genoa\n"
      "  talaria collateral fetch collateral/ --evidence claim\n"
      "  talaria collateral fetch collateral/ --pccs https://pccs.example:8081     # daily, to "
      "renew");
}

Status RunCollateralShow(const std::string& folder) {
  TALARIA_ASSIGN_OR_RETURN(const attest::Collateral collateral, attest::LoadCollateral(folder));
  TALARIA_ASSIGN_OR_RETURN(const std::vector<attest::CollateralExpiry> all,
                           attest::ExpiryOf(collateral));
  PrintExpiries(all);
  std::fputs("Signatures are checked when evidence is.\n", stderr);
  return OkStatus();
}

Status RunCollateralFetch(const CollateralFetchArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(const client::VendorServers servers, ServersOf(arguments));
  client::HttpsOptions options;
  options.timeout_ms = arguments.timeout_s * 1000;
  options.max_body_bytes = 2 * attest::kMaxCollateralFileBytes;  // hexadecimal digits, of a cache
  TALARIA_ASSIGN_OR_RETURN(const auto fetcher, client::MakeHttpsFetcher(options));
  TALARIA_ASSIGN_OR_RETURN(
      attest::CollateralUpdate update,
      attest::CollateralUpdate::Open(
          {.folder = arguments.folder, .now = attest::UnixTime{std::time(nullptr)}}));
  TALARIA_ASSIGN_OR_RETURN(const CollateralWish wish, WishOf(arguments, update.held()));
  Report report;
  for (const attest::SnpProduct product : wish.amd) {
    const auto list = client::FetchAmdCrl(*fetcher, servers, product);
    report.Add(attest::AmdCrlPath(product),
               list.ok() ? update.ReplaceAmdCrl(product, *list) : list.status());
  }
  for (const CollateralWish::Tdx& platform : wish.tdx) {
    const auto fetched = client::FetchTdx(*fetcher, servers, platform);
    report.Add(attest::TdxPlatformPath(platform.fmspc),
               fetched.ok()
                   ? update.ReplaceTdx(platform.fmspc, fetched->files, fetched->pck_ca_chain_pem)
                   : fetched.status());
  }
  if (const auto now = attest::LoadCollateral(arguments.folder); now.ok()) {
    TALARIA_ASSIGN_OR_RETURN(const auto expiries, attest::ExpiryOf(*now));
    PrintExpiries(expiries);
  }
  return report.Finish();
}

}  // namespace talaria
