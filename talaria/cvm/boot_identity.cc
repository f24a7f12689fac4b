#include "talaria/cvm/boot_identity.h"

#include <chrono>
#include <utility>

#include "talaria/base/bytes.h"
#include "talaria/ring/profile.h"
#ifdef TALARIA_SIMULATED_TEE
#include "talaria/attest/simulated/simulated_attester.h"
#endif

namespace talaria::cvm {
namespace {

constexpr std::chrono::seconds kProbeTime{10};

Result<std::unique_ptr<attest::Attester>> MakeAttester(const Config& config, bool simulated_tee) {
  if (!simulated_tee) {
    constexpr std::string_view kNoTee =
        "this machine's TEE gives no evidence (for development there is --insecure-simulated-tee)";
    Result<attest::TsmReporter> reporter = attest::TsmReporter::Create(config.report_folder);
    if (!reporter.ok()) return reporter.status().Annotate(kNoTee);
    Result<attest::TsmAttester> attester = attest::TsmAttester::Create(
        std::move(*reporter), std::chrono::steady_clock::now() + kProbeTime);
    if (!attester.ok()) return attester.status().Annotate(kNoTee);
    return std::unique_ptr<attest::Attester>(
        std::make_unique<attest::TsmAttester>(std::move(*attester)));
  }
#ifdef TALARIA_SIMULATED_TEE
  TALARIA_ASSIGN_OR_RETURN(const attest::SimulatedMeasurement measurement,
                           attest::MeasureFile("/proc/self/exe"));
  TALARIA_ASSIGN_OR_RETURN(
      std::unique_ptr<attest::SimulatedAttester> attester,
      attest::SimulatedAttester::Create({.measurement = measurement,
                                         .machine = attest::SimulatedMachine::kCurrent,
                                         .debug = false}));
  return std::unique_ptr<attest::Attester>(std::move(attester));
#else
  return Status(Code::kUnsupported, "this program was built without the simulated TEE");
#endif
}

}  // namespace

Result<std::shared_ptr<BootIdentity>> MakeBootIdentity(const Config& config, bool simulated_tee) {
  attest::Context context{.version = attest::kAttestationVersion,
                          .model_identity = {},
                          .profile = static_cast<uint16_t>(ring::kProfiles[0].id),
                          .check_vectors = static_cast<uint8_t>(config.check_vectors),
                          .configuration = config.digest,
                          .tenant_key = {},
                          .development = simulated_tee};
#ifdef TALARIA_SIMULATED_TEE
  context.development = true;
#endif
  if (!FromHex(config.identity, context.model_identity) ||
      !FromHex(config.tenant_key, context.tenant_key)) {
    return Status(Code::kInvalidArgument,
                  "what is attested needs model.identity and tenant.key in hexadecimal digits");
  }
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<attest::Attester> attester,
                           MakeAttester(config, simulated_tee));
  TALARIA_ASSIGN_OR_RETURN(wire::TlsKey key, wire::TlsKey::Generate());
  return std::make_shared<BootIdentity>(BootIdentity{std::move(key), std::move(attester), context});
}

}  // namespace talaria::cvm
