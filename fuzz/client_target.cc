#include <algorithm>

#include "fuzz/targets.h"
#include "talaria/client/collateral_fetch.h"
#include "talaria/client/release.h"

namespace talaria::fuzz {
namespace {

std::string_view TextOf(Bytes input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

}  // namespace

bool Release(Bytes input) {
  const Result<client::Release> release = client::ParseRelease(TextOf(input));
  if (!release.ok()) {
    TALARIA_CHECK(release.status().code() == Code::kUntrusted);
    return false;
  }
  TALARIA_CHECK(client::EncodeRelease(*release).value() == TextOf(input));
  return true;
}

bool IssuerChain(Bytes input) {
  const Result<std::string> chain = client::DecodeIssuerChain(TextOf(input));
  if (!chain.ok()) {
    TALARIA_CHECK(chain.status().code() == Code::kUntrusted);
    return false;
  }
  TALARIA_CHECK(!chain->empty() && chain->size() <= input.size());
  TALARIA_CHECK(std::ranges::all_of(
      *chain, [](char c) { return c == '\n' || c == '\r' || (c >= 0x20 && c <= 0x7e); }));
  return true;
}

}  // namespace talaria::fuzz
