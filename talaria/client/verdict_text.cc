#include "talaria/client/verdict_text.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "talaria/attest/facts.h"
#include "talaria/attest/refusal.h"

namespace talaria::client {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

void Line(std::string& out, const std::string& name, const std::string& value) {
  out += name;
  out.append(name.size() < 22 ? 22 - name.size() : 1, ' ');
  out += value + '\n';
}

}  // namespace

const char kDevelopmentWarning[] =
    "WARNING: DEVELOPMENT ONLY. The TEE is simulated: anybody can make such evidence, and nothing "
    "that you send is protected.";

bool IsDevelopment(const Attested& attested) {
  return attested.verdict.type == attest::EvidenceType::kSimulated ||
         attested.verdict.context.development;
}

std::string VerdictText(const Attested& attested, const std::string& server) {
  const attest::Verdict& verdict = attested.verdict;
  std::string out;
  if (IsDevelopment(attested)) out += std::string(kDevelopmentWarning) + "\n\n";
  Line(out, "verified", server);
  Line(out, "evidence", std::string(attest::EvidenceTypeName(verdict.type)));
  Line(out, "evidence digest", ToHex(verdict.evidence_digest));
  Line(out, "key exchange", attest::Printable(attested.group));
  Line(out, "key of the CVM", ToHex(attested.key));
  Line(out, "verified at", attest::FormatUtc(attested.verified_at));
  Line(out, "valid until", attest::FormatUtc(verdict.valid_until));
  out += '\n';
  for (const auto& [name, value] : verdict.facts) Line(out, name, value);
  if (IsDevelopment(attested)) out += std::string("\n") + kDevelopmentWarning + '\n';
  return out;
}

std::string VerdictJson(const Attested& attested, const std::string& server) {
  const attest::Verdict& verdict = attested.verdict;
  Json out = {{"trusted", true},
              {"server", server},
              {"development", IsDevelopment(attested)},
              {"evidence", attest::EvidenceTypeName(verdict.type)},
              {"evidence_digest", ToHex(verdict.evidence_digest)},
              {"measurement", ToHex(Bytes(verdict.measurement))},
              {"model_identity", ToHex(verdict.context.model_identity)},
              {"configuration", ToHex(verdict.context.configuration)},
              {"tenant_key", ToHex(Bytes(verdict.context.tenant_key))},
              {"check_vectors", verdict.context.check_vectors},
              {"profile", verdict.context.profile},
              {"key_exchange", attest::Printable(attested.group)},
              {"cvm_key", ToHex(attested.key)},
              {"verified_at", attested.verified_at},
              {"valid_until", verdict.valid_until}};
  Json facts = Json::object();
  for (const auto& [name, value] : verdict.facts) facts[name] = value;
  out["facts"] = std::move(facts);
  return Dump(out);
}

std::string ReceiptText(const attest::Receipt& receipt, const attest::Verdict& verdict,
                        const std::string& name) {
  std::string out;
  Line(out, "receipt", name + ": good");
  Line(out, "time", attest::FormatUtc(receipt.time) + " by the CVM's clock");
  Line(out, "request", "POST " + attest::Printable(receipt.exchange.path));
  Line(out, "status", std::to_string(receipt.exchange.status));
  Line(out, "evidence", std::string(attest::EvidenceTypeName(verdict.type)));
  Line(out, "evidence digest", ToHex(verdict.evidence_digest));
  Line(out, "key of the CVM", ToHex(Sha256Of(receipt.key)));
  out += '\n';
  for (const auto& [fact, value] : verdict.facts) Line(out, fact, value);
  return out;
}

std::string ReceiptJson(const attest::Receipt& receipt, const attest::Verdict& verdict,
                        const std::string& name) {
  Json out = {{"trusted", true},
              {"receipt", name},
              {"time", receipt.time},
              {"path", receipt.exchange.path},
              {"status", receipt.exchange.status},
              {"development",
               verdict.type == attest::EvidenceType::kSimulated || verdict.context.development},
              {"evidence", attest::EvidenceTypeName(verdict.type)},
              {"evidence_digest", ToHex(verdict.evidence_digest)},
              {"measurement", ToHex(Bytes(verdict.measurement))},
              {"model_identity", ToHex(verdict.context.model_identity)},
              {"configuration", ToHex(verdict.context.configuration)},
              {"cvm_key", ToHex(Sha256Of(receipt.key))}};
  Json facts = Json::object();
  for (const auto& [fact, value] : verdict.facts) facts[fact] = value;
  out["facts"] = std::move(facts);
  return Dump(out);
}

std::string RefusalText(const Status& status, const std::string& server) {
  std::string out;
  if (status.code() == Code::kUntrusted) {
    Line(out, "NOT TRUSTED", server);
    Line(out, "reason", status.message());
    out += "Nothing was sent to it but a random number.\n";
  } else {
    Line(out, "not verified", server);
    Line(out, "reason", status.ToString());
  }
  return out;
}

std::string RefusalJson(const Status& status, const std::string& server) {
  const std::string_view reason = attest::ReasonOf(status);
  return Dump({{"trusted", false},
               {"server", server},
               {"reason", reason.empty() ? CodeName(status.code()) : reason},
               {"message", status.message()}});
}

}  // namespace talaria::client
