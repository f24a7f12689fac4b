// Attestation evidence and collateral of Intel TDX.
#include <algorithm>
#include <string_view>

#include "fuzz/targets.h"
#include "talaria/attest/refusal.h"
#include "talaria/attest/tdx/collateral_json.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"

namespace talaria::fuzz {
namespace {

// Whatever is not accepted is a refusal with a reason.
bool ExpectRefusal(const Status& status) {
  TALARIA_CHECK(attest::ReasonOf(status).starts_with("tdx-"));
  return false;
}

}  // namespace

bool TdxQuote(Bytes input) {
  const Result<attest::TdxQuote> quote = attest::ParseTdxQuote(input);
  if (!quote.ok()) return ExpectRefusal(quote.status());
  const std::vector<uint8_t> again = attest::EncodeTdxQuote(*quote);
  TALARIA_CHECK(again.size() == quote->canonical_bytes && again.size() <= input.size());
  TALARIA_CHECK(std::ranges::equal(again, input.first(again.size())));
  TALARIA_CHECK(std::ranges::equal(quote->signed_part, input.first(quote->signed_part.size())));
  for (const uint8_t byte : input.subspan(again.size())) TALARIA_CHECK(byte == 0);
  return true;
}

bool PckExtension(Bytes input) {
  const Result<attest::PckExtension> extension = attest::ParsePckExtension(input);
  return extension.ok() || ExpectRefusal(extension.status());
}

bool TdxCollateral(Bytes input) {
  if (input.empty()) return false;
  const std::string_view text(reinterpret_cast<const char*>(input.data()) + 1, input.size() - 1);
  switch (input[0]) {
    case 0: {
      const Result<attest::TcbInfo> info = attest::ParseTcbInfo(text);
      if (!info.ok()) return ExpectRefusal(info.status());
      TALARIA_CHECK(!info->levels.empty());
      return true;
    }
    case 1: {
      const Result<attest::QeIdentity> identity = attest::ParseQeIdentity(text);
      if (!identity.ok()) return ExpectRefusal(identity.status());
      TALARIA_CHECK(!identity->levels.empty());
      return true;
    }
    case 2: {
      const Result<attest::SignedJson> sliced = attest::SliceSignedJson(text, "tcbInfo");
      if (!sliced.ok()) return ExpectRefusal(sliced.status());
      TALARIA_CHECK("{\"tcbInfo\":" + sliced->object + ",\"signature\":\"" + sliced->signature_hex +
                        "\"}" ==
                    text);
      return true;
    }
    default:
      return false;
  }
}

}  // namespace talaria::fuzz
