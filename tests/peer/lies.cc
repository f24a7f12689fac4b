#include "tests/peer/lies.h"

namespace talaria::peer {
namespace {

using attest::Binding;
using attest::Claim;
using attest::Context;
using attest::Receipt;
using attest::SimulatedMachine;
using attest::SimulatedOptions;

Lie OfContext(std::function<void(Context&)> change) { return {.context = std::move(change)}; }
Lie OfTee(std::function<void(SimulatedOptions&)> change) { return {.tee = std::move(change)}; }
Lie OfBinding(std::function<void(Binding&)> change) { return {.binding = std::move(change)}; }
Lie OfClaim(std::function<void(Claim&)> change) { return {.claim = std::move(change)}; }

Lie OfReceipt(std::function<void(Receipt&)> change) { return {.receipt = std::move(change)}; }
Lie OfSignedReceipt(std::function<void(Receipt&)> change) {
  return {.signed_receipt = std::move(change)};
}

attest::Role Other(attest::Role role) {
  return role == attest::Role::kServerToClient ? attest::Role::kClientToCloud
                                               : attest::Role::kServerToClient;
}

}  // namespace

const std::map<std::string, Lie>& Lies() {
  static const std::map<std::string, Lie> lies = {
      {"none", {}},
      {"measurement", OfTee([](SimulatedOptions& t) { t.measurement[47] ^= 1; })},
      {"debug-guest", OfTee([](SimulatedOptions& t) { t.debug = true; })},
      {"older-tcb", OfTee([](SimulatedOptions& t) { t.machine = SimulatedMachine::kOlderTcb; })},
      {"other-chip", OfTee([](SimulatedOptions& t) { t.machine = SimulatedMachine::kOtherChip; })},
      {"revoked-certificate",
       OfTee([](SimulatedOptions& t) { t.machine = SimulatedMachine::kRevoked; })},
      {"one-check-vector", OfContext([](Context& c) { c.check_vectors = 1; })},
      {"model", OfContext([](Context& c) { c.model_identity[0] ^= 1; })},
      {"tenant", OfContext([](Context& c) { c.tenant_key[0] ^= 1; })},
      {"configuration", OfContext([](Context& c) { c.configuration[0] ^= 1; })},
      {"stale-nonce", OfBinding([](Binding& b) { b.nonce[0] ^= 1; })},
      {"another-session", OfBinding([](Binding& b) { b.exporter[31] ^= 1; })},
      {"other-role", OfBinding([](Binding& b) { b.role = Other(b.role); })},
      {"another-key", OfBinding([](Binding& b) { b.cvm_key[0] ^= 1; })},
      {"for-another-peer", OfBinding([](Binding& b) { b.peer_key[0] ^= 1; })},
      {"context-changed-later", OfClaim([](Claim& c) { c.context.tenant_key[31] ^= 1; })},
      {"labelled-genuine",
       OfClaim([](Claim& c) { c.evidence.type = attest::EvidenceType::kSevSnp; })},
      {"certificate-damaged", OfClaim([](Claim& c) { c.evidence.certificates[300] ^= 1; })},
      {"report-changed-later", OfClaim([](Claim& c) { c.evidence.report[100] ^= 1; })},
      {"receipt-of-another-request", OfReceipt([](Receipt& r) { r.exchange.request[0] ^= 1; })},
      {"receipt-of-another-answer", OfReceipt([](Receipt& r) { r.exchange.response[0] ^= 1; })},
      {"receipt-of-another-route", OfReceipt([](Receipt& r) { r.exchange.path = "/v1/other"; })},
      {"receipt-of-another-session", OfReceipt([](Receipt& r) { r.exporter[0] ^= 1; })},
      {"receipt-changed-later", OfSignedReceipt([](Receipt& r) { r.time -= 1; })},
  };
  return lies;
}

}  // namespace talaria::peer
