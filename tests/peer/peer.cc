// A CVM of the tests that lies in one thing and speaks the real protocol: as a server to the real
// `talaria`, as a client to the real `talaria-cloud serve`. Never installed. tests/system/ uses it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "talaria/client/testing/fake_cvm.h"
#include "talaria/wire/connection.h"
#include "talaria/wire/messages.h"
#include "talaria/wire/tls.h"
#include "tests/peer/lies.h"

namespace talaria::peer {
namespace {

using client::testing::FakeCvm;
using client::testing::FakeCvmOptions;
using client::testing::FakeExchange;
using wire::Type;

constexpr int kTimeoutMs = 20'000;

struct Arguments {
  std::string lie = "none", measurement, model, tenant, configuration;
  // serve
  std::string listen, record, upstream;
  // knock
  std::string cloud, provider, first = "evidence";
};

template <class T>
T Hex(const std::string& text) {
  T out;
  if (!FromHex(text, out)) throw CLI::ValidationError("'" + text + "' is no such hexadecimal");
  return out;
}

attest::Context TrueContext(const Arguments& args) {
  return {.version = attest::kAttestationVersion,
          .model_identity = Hex<Digest>(args.model),
          .profile = 1,
          .check_vectors = 2,
          .configuration = Hex<Digest>(args.configuration),
          .tenant_key = Hex<attest::TenantKey>(args.tenant),
          .development = true};
}

attest::SimulatedOptions TrueTee(const Arguments& args) {
  return {.measurement = Hex<attest::SimulatedMeasurement>(args.measurement),
          .machine = attest::SimulatedMachine::kCurrent,
          .debug = false};
}

// A true CVM's evidence, for the nonce of somebody else: what a man in the middle has to show.
std::string Relayed(const std::string& upstream, const std::string& body) {
  const wire::TlsKey key = wire::TlsKey::Generate().value();
  auto tls =
      wire::TlsConnect(wire::Connect(wire::Endpoint::Parse(upstream).value(), kTimeoutMs).value(),
                       key, wire::PeerKey::Any(), kTimeoutMs)
          .value();
  const std::string request =
      "POST /v1/talaria/attestation HTTP/1.1\r\nHost: talaria\r\nConnection: close\r\n"
      "Content-Type: application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  TALARIA_CHECK(tls->Send({AsBytes(request)}, kTimeoutMs).ok());
  std::string answer;
  std::array<uint8_t, 16384> piece;
  for (;;) {
    const auto size = tls->ReceiveSome(piece, 1, kTimeoutMs);
    if (!size.ok() || *size == 0) return answer;
    answer.append(piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*size));
  }
}

[[noreturn]] void Serve(const Arguments& args, const Lie& lie) {
  std::mutex mutex;
  std::ofstream record(args.record, std::ios::binary);
  FakeCvmOptions options;
  options.context = TrueContext(args);
  options.tee = TrueTee(args);
  options.ask_for_client_key = true;
  lie.context(options.context);
  lie.tee(options.tee);
  options.alter_binding = lie.binding;
  options.alter_claim = lie.claim;
  options.alter_receipt = lie.receipt;
  options.alter_signed_receipt = lie.signed_receipt;
  if (!args.upstream.empty()) {
    options.answer_attestation = [&](FakeExchange& exchange) {
      exchange.Raw(Relayed(args.upstream, exchange.body));
    };
  }
  options.on_read = [&](Bytes bytes) {
    const std::lock_guard lock(mutex);
    record.write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    record.flush();
  };
  const FakeCvm cvm(args.listen, std::move(options));
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// One connection to the cloud, as a CVM has it.
class Knock {
 public:
  Knock(const Arguments& args, const wire::TlsKey& key) {
    auto tls = wire::TlsConnect(
                   wire::Connect(wire::Endpoint::Parse(args.cloud).value(), kTimeoutMs).value(),
                   key, wire::PeerKey::Pinned(Hex<Digest>(args.provider)), kTimeoutMs)
                   .value();
    tls_ = tls.get();
    connection_ = std::make_unique<wire::Connection>(std::move(tls), wire::kMaxFrameBytes);
  }
  void Greet() {
    Send(Type::kHello, Encode(wire::Hello{}));
    const wire::Frame frame = connection_->Receive(kTimeoutMs).value();
    TALARIA_CHECK(frame.type == Type::kHelloReply);
    nonce_ = wire::DecodeHelloReply(frame.body)->nonce;
  }
  void Send(Type type, Bytes body) { (void)connection_->Send(type, {body}, kTimeoutMs); }
  // What a claim for this connection says when `lie` is told.
  std::vector<uint8_t> Claim(const Arguments& args, const Lie& lie) const {
    attest::Context context = TrueContext(args);
    attest::SimulatedOptions tee = TrueTee(args);
    lie.context(context);
    lie.tee(tee);
    auto attester = attest::SimulatedAttester::Create(tee).value();
    attest::Binding binding{.role = attest::Role::kClientToCloud,
                            .type = attester->type(),
                            .nonce = nonce_,
                            .exporter = tls_->Export(attest::kExporterLabel, nonce_).value(),
                            .cvm_key = tls_->own_key(),
                            .peer_key = tls_->peer_key(),
                            .context = DigestOf(context)};
    lie.binding(binding);
    attest::Claim claim{context, attester->Attest(attest::ReportDataFor(binding), {}).value()};
    lie.claim(claim);
    return Encode(claim);
  }
  // "attested", "chunk", "product", "error N", "closed", or another type's number.
  std::string Answer() {
    const auto frame = connection_->Receive(kTimeoutMs);
    if (!frame.ok()) return "closed";
    if (frame->type == Type::kAttested) return "attested";
    if (frame->type == Type::kChunk) return "chunk";
    if (frame->type == Type::kProduct) return "product";
    if (frame->type == Type::kError)
      return "error " + std::to_string(static_cast<int>(wire::DecodeError(frame->body)->code));
    return std::to_string(static_cast<int>(frame->type));
  }
  // Asks for what the provider guards; what comes.
  std::string Ask(model::StreamKind kind) {
    Send(Type::kFetch, Encode(wire::Fetch{{kind, 0}, 0, 64}));
    return Answer();
  }
  std::string Multiply() {
    std::vector<uint8_t> body(wire::kCallHeaderBytes + 6 * 64);
    wire::EncodeTo(wire::MultiplyHeader{.call = 1, .group = 0, .rows = 1}, body.data());
    Send(Type::kMultiply, body);
    return Answer();
  }
  uint64_t received() const { return connection_->bytes_received(); }

 private:
  const wire::TlsTransport* tls_ = nullptr;
  std::unique_ptr<wire::Connection> connection_;
  std::array<uint8_t, 32> nonce_{};
};

// Prints {"answer", "weights", "hints", "bytes"}: what came for the claim, then for asking anyway.
int KnockAt(const Arguments& args, const Lie& lie) {
  const wire::TlsKey key = wire::TlsKey::Generate().value();
  const wire::TlsKey another = wire::TlsKey::Generate().value();
  auto knock = std::make_unique<Knock>(args, key);
  std::string answer;
  if (args.first == "evidence") {
    knock->Greet();
    knock->Send(Type::kAttest, knock->Claim(args, lie));
    answer = knock->Answer();
  } else if (args.first == "relayed") {  // a true claim, of another CVM's connection
    Knock elsewhere(args, another);
    elsewhere.Greet();
    knock->Greet();
    knock->Send(Type::kAttest, elsewhere.Claim(args, lie));
    answer = knock->Answer();
  } else if (args.first == "second-connection") {  // with a key that nobody attested
    knock->Greet();
    knock->Send(Type::kAttest, knock->Claim(args, lie));
    TALARIA_CHECK(knock->Answer() == "attested");
    knock = std::make_unique<Knock>(args, another);
    knock->Greet();
  } else if (args.first == "multiply") {
    knock->Greet();
    answer = knock->Multiply();
  } else if (args.first == "multiply-without-hello") {
    answer = knock->Multiply();
  } else {
    throw CLI::ValidationError("--first " + args.first + ": no such thing");
  }
  nlohmann::ordered_json out = {{"answer", answer}};
  out["weights"] = knock->Ask(model::StreamKind::kWeights);
  out["hints"] = knock->Ask(model::StreamKind::kHints);
  out["bytes"] = knock->received();
  std::puts(out.dump().c_str());
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App program("A CVM of the tests that lies in one thing");
  program.require_subcommand(1);
  Arguments args;
  const auto common = [&](CLI::App* command) {
    command->add_option("--lie", args.lie, "What is wrong; none: nothing");
    command->add_option("--measurement", args.measurement)->required();
    command->add_option("--model", args.model)->required();
    command->add_option("--tenant", args.tenant)->required();
    command->add_option("--configuration", args.configuration)->required();
    return command;
  };
  CLI::App* serve = common(program.add_subcommand("serve", "Wait for users; ends by a signal"));
  serve->add_option("--listen", args.listen)->required();
  serve->add_option("--record", args.record, "File for all that users send, in plaintext")
      ->required();
  serve->add_option("--upstream", args.upstream, "A true CVM whose evidence is passed on");
  CLI::App* knock = common(program.add_subcommand("knock", "Try to be let in by a cloud"));
  knock->add_option("--cloud", args.cloud)->required();
  knock->add_option("--provider", args.provider, "The provider's key")->required();
  knock->add_option("--first", args.first,
                    "evidence, relayed, second-connection, multiply or multiply-without-hello");
  try {
    program.parse(argc, argv);
    const auto lie = Lies().find(args.lie);
    if (lie == Lies().end()) throw CLI::ValidationError("--lie " + args.lie + ": no such lie");
    if (serve->parsed()) Serve(args, lie->second);
    return KnockAt(args, lie->second);
  } catch (const CLI::ParseError& e) {
    return program.exit(e);
  }
}

}  // namespace
}  // namespace talaria::peer

int main(int argc, char** argv) { return talaria::peer::Main(argc, argv); }
