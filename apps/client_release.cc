// Release files: an image's builder signs its measurements, a user takes them from there.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>

#include "apps/client_commands.h"
#include "talaria/attest/facts.h"
#include "talaria/base/file.h"
#include "talaria/client/release.h"

namespace talaria {
namespace {

using client::ReleaseMeasurements;

Result<ReleaseMeasurements> ParseMeasurements(const std::string& option,
                                              const std::vector<std::string>& texts) {
  ReleaseMeasurements out;
  for (const std::string& text : texts) {
    if (!FromHex(text, out.emplace_back())) {
      return Status(Code::kInvalidArgument,
                    option + " must be 96 lower-case hexadecimal digits: SHA-384");
    }
  }
  return out;
}

Result<client::Release> ReleaseOf(const ReleaseSignArguments& arguments) {
  client::Release out{.name = arguments.name,
                      .version = arguments.version,
                      .date = arguments.date,
                      .sev_snp = {},
                      .tdx = {},
                      .simulated = {}};
  if (out.date.empty()) out.date = attest::FormatUtc(std::time(nullptr)).substr(0, 10);
  if (!arguments.measurements.empty()) {
    TALARIA_ASSIGN_OR_RETURN(out.sev_snp,
                             ParseMeasurements("--measurement", arguments.measurements));
  }
  if (!arguments.simulated.empty()) {
    TALARIA_ASSIGN_OR_RETURN(out.simulated, ParseMeasurements("--simulated", arguments.simulated));
  }
  bool tdx = !arguments.mrtd.empty();
  for (const auto& list : arguments.rtmr) tdx = tdx || !list.empty();
  if (tdx) {
    client::ReleaseTdx& values = out.tdx.emplace();
    TALARIA_ASSIGN_OR_RETURN(values.mrtd, ParseMeasurements("--mrtd", arguments.mrtd));
    for (size_t i = 0; i < 4; ++i) {
      TALARIA_ASSIGN_OR_RETURN(values.rtmr[i],
                               ParseMeasurements("--rtmr" + std::to_string(i), arguments.rtmr[i]));
      if (values.rtmr[i].empty() || values.mrtd.empty())
        return Status(Code::kInvalidArgument,
                      "of TDX --mrtd and --rtmr0 to --rtmr3 are all wanted");
    }
  }
  return out;
}

void Print(const char* name, const ReleaseMeasurements& list) {
  for (const auto& value : list) std::printf("%-10s %s\n", name, ToHex(value).c_str());
}

}  // namespace

void AddRelease(CLI::App& program, ReleaseArguments& release) {
  CLI::App* group =
      program.add_subcommand("release", "Measurements of an image, signed by who built it");
  group->require_subcommand(1);
  CLI::App* keygen =
      group->add_subcommand("keygen", "Make a builder's key; print its public half, for users");
  keygen->add_option("file", release.file, "The file to write, a new one")->required();

  CLI::App* sign = group->add_subcommand("sign", "Write a release file");
  ReleaseSignArguments& s = release.sign;
  sign->add_option("file", release.file, "The file to write, a new one")->required();
  sign->add_option("--key", s.key, "The builder's key")->required()->type_name("FILE");
  sign->add_option("--name", s.name, "Of the image")->required()->type_name("NAME");
  sign->add_option("--version", s.version, "Of the image")->required()->type_name("VERSION");
  sign->add_option("--date", s.date, "YYYY-MM-DD; today")->type_name("DATE");
  sign->add_option("--measurement", s.measurements, "SEV-SNP: the launch digest")->type_name("HEX");
  sign->add_option("--mrtd", s.mrtd, "TDX")->type_name("HEX");
  for (size_t i = 0; i < 4; ++i) {
    sign->add_option("--rtmr" + std::to_string(i), s.rtmr[i], "TDX")->type_name("HEX");
  }
  sign->add_option("--simulated", s.simulated, "The simulated TEE: as `talaria image measure` says")
      ->type_name("HEX");
  sign->footer(
      "Each measurement may be given several times, for instance for several numbers of "
      "CPUs.\nExample:\n  talaria release sign release.toml --key builder.pem --name talaria-cvm "
      "--version 1.2.0 --measurement HEX");

  CLI::App* verify = group->add_subcommand(
      "verify", "Say whether a builder has signed a release file, and what it states");
  verify->add_option("file", release.file, "The release file")->required();
  verify
      ->add_option("--builder-key", release.builder_key,
                   "The builder's public key, as `talaria release keygen` printed it; get it from "
                   "the builder, not from whoever gave you the release")
      ->required()
      ->type_name("FILE");
  verify->footer(
      "Example:\n  talaria release verify release.toml --builder-key builder.pub\nThen: talaria "
      "policy init --release release.toml --builder-key builder.pub ...");
}

Status RunReleaseKeygen(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const tenant::TenantKey key, tenant::TenantKey::Generate());
  TALARIA_ASSIGN_OR_RETURN(const std::string pem, tenant::PublicKeyPem(key.public_key()));
  TALARIA_RETURN_IF_ERROR(key.ToPemFile(path));
  std::fputs(pem.c_str(), stdout);
  return OkStatus();
}

Status RunReleaseSign(const ReleaseArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(const client::Release release, ReleaseOf(arguments.sign));
  TALARIA_ASSIGN_OR_RETURN(const tenant::TenantKey key,
                           tenant::TenantKey::FromPemFile(arguments.sign.key));
  TALARIA_ASSIGN_OR_RETURN(const std::string text, client::SignRelease(release, key));
  TALARIA_ASSIGN_OR_RETURN(const Fd file, CreateFile(arguments.file));
  if (Status s = WriteAt(file, 0, AsBytes(text)); !s.ok()) {
    (void)std::remove(arguments.file.c_str());  // no half release
    return s.Annotate(arguments.file);
  }
  return OkStatus();
}

Status RunReleaseVerify(const ReleaseArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(const tenant::PublicKey builder,
                           tenant::PublicKeyFromPemFile(arguments.builder_key));
  TALARIA_ASSIGN_OR_RETURN(const client::Release release,
                           client::LoadRelease(arguments.file, builder));
  std::printf("good\n%-10s %s\n%-10s %s\n%-10s %s\n%-10s %s\n", "name", release.name.c_str(),
              "version", release.version.c_str(), "date", release.date.c_str(), "builder",
              ToHex(builder).c_str());
  if (release.sev_snp) Print("sev-snp", *release.sev_snp);
  if (release.tdx) {
    Print("mrtd", release.tdx->mrtd);
    for (size_t i = 0; i < 4; ++i)
      Print(("rtmr" + std::to_string(i)).c_str(), release.tdx->rtmr[i]);
  }
  if (release.simulated) Print("simulated", *release.simulated);
  return OkStatus();
}

}  // namespace talaria
