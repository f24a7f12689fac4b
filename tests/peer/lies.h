// The lies of the tests' peer: what a CVM may say of itself, one thing wrong at a time.
#ifndef TALARIA_TESTS_PEER_LIES_H_
#define TALARIA_TESTS_PEER_LIES_H_

#include <functional>
#include <map>
#include <string>

#include "talaria/attest/binding.h"
#include "talaria/attest/claim.h"
#include "talaria/attest/receipt.h"
#include "talaria/attest/simulated/simulated_attester.h"

namespace talaria::peer {

// Without changes: a CVM that the tests' policies accept.
struct Lie {
  // What really runs.
  std::function<void(attest::Context&)> context = [](attest::Context&) {};
  std::function<void(attest::SimulatedOptions&)> tee = [](attest::SimulatedOptions&) {};
  // What the evidence is bound to.
  std::function<void(attest::Binding&)> binding = [](attest::Binding&) {};
  // What is sent.
  std::function<void(attest::Claim&)> claim = [](attest::Claim&) {};
  // Receipts of what a user was answered: before they are signed, and after.
  std::function<void(attest::Receipt&)> receipt = [](attest::Receipt&) {};
  std::function<void(attest::Receipt&)> signed_receipt = [](attest::Receipt&) {};
};

// By name; "none" is the truth.
const std::map<std::string, Lie>& Lies();

}  // namespace talaria::peer

#endif  // TALARIA_TESTS_PEER_LIES_H_
