// Who gets weights and products over TLS: only a CVM whose evidence the policy accepts, for this
// very connection. Evidence comes from the simulated TEE; the judgement is the product's.
#include <gmock/gmock.h>

#include "talaria/attest/simulated/simulated_attester.h"
#include "talaria/cloud/server_testing.h"
#include "talaria/cloud/testing/fake_device.h"
#include "talaria/model/store.h"
#include "talaria/wire/tls.h"

namespace talaria::cloud {
namespace {

using attest::Claim;
using attest::Context;
using attest::SimulatedMachine;
using wire::ErrorCode;
using wire::Type;

constexpr int kTimeoutMs = 5000;
constexpr attest::UnixTime kNow = 1800000000;  // 2027, within the simulated certificates
const std::vector<TinyStore::Shape> kShapes = {{64, {32, 40}}};

attest::SimulatedMeasurement Measurement() {
  attest::SimulatedMeasurement out{};
  out[0] = 7;
  return out;
}

attest::Policy TestPolicy(const Digest& identity) {
  return attest::Policy{
      .context = attest::ContextPolicy{.model_identities = {identity},
                                       .configurations = attest::Accepted<Digest>::Any(),
                                       .tenant_keys = attest::Accepted<attest::TenantKey>::Any(),
                                       .profiles = std::vector<uint16_t>{1},
                                       .min_check_vectors = uint8_t{2},
                                       .allow_development = true},
      .max_age_s = 3600,
      .require_post_quantum = false,
      .crls = attest::CrlHandling::kRequired,
      .sev_snp = {},
      .tdx = {},
      .simulated = attest::SimulatedPolicy{.measurements =
                                               std::vector<attest::SnpMeasurement>{Measurement()}},
      .digest = {}};
}

// A server with a gate whose clock tests move.
class AttestedServer {
 public:
  explicit AttestedServer(const TinyStore& store, bool take_simulated = true,
                          ServerOptions options = {}, LogLevel level = LogLevel::kError)
      : identity(model::Store::Open(store.path())->identity()) {
    attest::VerifierOptions verifier{
        .policy = TestPolicy(identity), .collateral = {}, .simulated = {}};
    if (take_simulated)
      verifier.simulated = attest::SimulatedTrust{attest::SimulatedRoots(), attest::SimulatedCrl()};
    wire::TlsKey key = std::move(*wire::TlsKey::Generate());
    provider_key = key.spki_sha256();
    gate = std::make_shared<Gate>(
        GateOptions{.key = std::move(key),
                    .verifier = *attest::Verifier::Create(std::move(verifier)),
                    .now = [] { return kNow; },
                    .steady_now = [this] { return Gate::Time{} + std::chrono::seconds(seconds); }});
    const ServerOptions test = TestOptions(store);
    options.store = test.store;
    options.listen = test.listen;
    options.device = test.device;
    options.gate = gate;
    options.local_only = true;
    server = std::make_unique<RunningServer>(options, level);
  }
  Digest identity, provider_key{};
  std::atomic<int> seconds{1};
  std::shared_ptr<Gate> gate;
  std::unique_ptr<RunningServer> server;
};

// A CVM's side of one connection, step by step.
class Cvm {
 public:
  explicit Cvm(const AttestedServer& server, const wire::TlsKey& key) : server_(server) {
    auto tls =
        wire::TlsConnect(*wire::Connect(*wire::Endpoint::Parse(server.server->address), kTimeoutMs),
                         key, wire::PeerKey::Pinned(server.provider_key), kTimeoutMs);
    EXPECT_TRUE(tls.ok()) << tls.status().ToString();
    tls_ = tls->get();
    connection_ = std::make_unique<wire::Connection>(std::move(*tls), wire::kMaxFrameBytes);
  }
  wire::HelloReply Greet() {
    Send(Type::kHello, Encode(wire::Hello{}));
    const Result<wire::Frame> frame = connection_->Receive(kTimeoutMs);
    EXPECT_TRUE(frame.ok() && frame->type == Type::kHelloReply);
    nonce = wire::DecodeHelloReply(frame->body)->nonce;
    return *wire::DecodeHelloReply(frame->body);
  }
  void Send(Type type, Bytes body) { (void)connection_->Send(type, {body}, kTimeoutMs); }
  attest::Channel Channel() const {
    return {.role = attest::Role::kClientToCloud,
            .nonce = nonce,
            .exporter = *tls_->Export(attest::kExporterLabel, nonce),
            .cvm_key = tls_->own_key(),
            .peer_key = tls_->peer_key()};
  }
  Claim MakeClaim(const attest::Channel& channel, attest::SimulatedOptions options = Good()) const {
    auto attester = *attest::SimulatedAttester::Create(options);
    const attest::ReportData data = attest::ReportDataFor({.role = channel.role,
                                                           .type = attester->type(),
                                                           .nonce = channel.nonce,
                                                           .exporter = channel.exporter,
                                                           .cvm_key = channel.cvm_key,
                                                           .peer_key = channel.peer_key,
                                                           .context = DigestOf(context)});
    return {context, *attester->Attest(data, {})};
  }
  static attest::SimulatedOptions Good() {
    return {.measurement = Measurement(), .machine = SimulatedMachine::kCurrent, .debug = false};
  }
  // The type of what comes, and the code if it is an error.
  std::pair<Type, ErrorCode> Answer() {
    const Result<wire::Frame> frame = connection_->Receive(kTimeoutMs);
    if (!frame.ok()) return {Type::kDrain, ErrorCode::kInternal};  // never sent here
    if (frame->type != Type::kError) return {frame->type, ErrorCode::kInternal};
    return {frame->type, wire::DecodeError(frame->body)->code};
  }
  std::pair<Type, ErrorCode> Present(const Claim& claim) {
    Send(Type::kAttest, Encode(claim));
    return Answer();
  }
  // Whether the server ends the connection by itself.
  bool IsClosed() {
    const Result<wire::Frame> frame = connection_->Receive(kTimeoutMs);
    return !frame.ok() && frame.status().message().find("no progress") == std::string::npos;
  }
  // Whether weights can be had on this connection.
  bool HasWeights() {
    Send(Type::kFetch, Encode(wire::Fetch{{model::StreamKind::kWeights, 0}, 0, 16}));
    return Answer().first == Type::kChunk;
  }

  const AttestedServer& server_;  // before `context`, which it initialises
  Context context{.version = attest::kAttestationVersion,
                  .model_identity = server_.identity,
                  .profile = 1,
                  .check_vectors = 2,
                  .configuration = {},
                  .tenant_key = {},
                  .development = true};
  std::array<uint8_t, 32> nonce{};

 private:
  const wire::TlsTransport* tls_ = nullptr;
  std::unique_ptr<wire::Connection> connection_;
};

const std::pair<Type, ErrorCode> kRefused = {Type::kError, ErrorCode::kNotAttested};

TEST(AttestedServer, BeforeEvidenceNothingButHelloIsAnswered) {
  const TinyStore store(kShapes);
  const AttestedServer server(store);
  const Buffer planes = store.Planes(0, 1, 1);
  for (const bool greet : {true, false}) {
    for (const Type type : {Type::kFetch, Type::kMultiply, Type::kPing, Type::kDrain}) {
      const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
      Cvm cvm(server, key);
      if (greet) {
        EXPECT_FALSE(cvm.Greet().attested);
      }
      cvm.Send(type, planes);
      EXPECT_EQ(cvm.Answer(), kRefused);
      EXPECT_FALSE(cvm.HasWeights());
    }
  }
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm large(server, key);  // strangers may not even send much
  large.Greet();
  large.Send(Type::kMultiply, Buffer(2 * attest::kMaxClaimBytes));
  EXPECT_EQ(large.Answer(), std::pair(Type::kError, ErrorCode::kBadRequest));
}

// Whoever is connected and not attested, as far as they get, changes nothing about the products of
// somebody who is: all rows that the device takes go into one, not a quarter of them.
// A request for rows of the first group.
Buffer Product(const TinyStore& store, uint32_t rows) {
  uint8_t header[wire::kCallHeaderBytes];
  EncodeTo(wire::MultiplyHeader{1, 0, rows}, header);
  Buffer body(header, header + sizeof(header));
  const Buffer planes = store.Planes(0, rows, 1);
  body.insert(body.end(), planes.begin(), planes.end());
  return body;
}

// Two CVMs, one with three connections, all with as many rows: each CVM has half of a product.
TEST(AttestedServer, ConnectionsOfACvmCountAsOne) {
  const TinyStore store(kShapes);
  const auto device = std::make_shared<testing::FakeDevice>(200);  // 50 of them with company
  ServerOptions options;
  options.test_device = device;
  const AttestedServer server(store, true, options);
  const wire::TlsKey one = std::move(*wire::TlsKey::Generate());
  const wire::TlsKey other = std::move(*wire::TlsKey::Generate());
  std::vector<std::unique_ptr<Cvm>> cvms;
  for (const wire::TlsKey* key : {&one, &one, &one, &other}) {
    Cvm& cvm = *cvms.emplace_back(std::make_unique<Cvm>(server, *key));
    if (!cvm.Greet().attested) {
      ASSERT_EQ(cvm.Present(cvm.MakeClaim(cvm.Channel())).first, Type::kAttested);
    }
  }
  bool together = false;
  for (int wait_ms = 20; !together && wait_ms < 5000; wait_ms *= 2) {
    device->ForgetCalls();
    testing::Barrier barrier;
    device->SetScript([&](const testing::FakeCall&) { return barrier.Wait(); });
    // The first one's product holds the device until the others' requests have come.
    for (const auto& cvm : cvms) {
      cvm->Send(Type::kMultiply, Product(store, 100));
      if (cvm == cvms[0]) barrier.Await(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
    barrier.Open();
    for (const auto& cvm : cvms) ASSERT_EQ(cvm->Answer().first, Type::kProduct);
    std::vector<size_t> rows = device->calls()[1].rows;
    together = rows.size() == 4;
    if (together) {
      std::ranges::sort(rows);
      EXPECT_EQ(rows, (std::vector<size_t>{8, 8, 9, 25}));
    }
    device->SetScript([](const testing::FakeCall&) { return OkStatus(); });
  }
  EXPECT_TRUE(together);
}

TEST(AttestedServer, ACvmHasAFewConnectionsAndTheOthersHaveTheirs) {
  const TinyStore store(kShapes);
  ServerOptions options;
  options.max_connections_per_cvm = 2;
  const AttestedServer server(store, true, options);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  auto first = std::make_unique<Cvm>(server, key);
  EXPECT_FALSE(first->Greet().attested);
  EXPECT_EQ(first->Present(first->MakeClaim(first->Channel())).first, Type::kAttested);
  Cvm second(server, key);
  EXPECT_TRUE(second.Greet().attested);
  Cvm third(server, key);
  third.Send(Type::kHello, Encode(wire::Hello{}));
  EXPECT_EQ(third.Answer(), std::pair(Type::kError, ErrorCode::kOverloaded));
  EXPECT_TRUE(third.IsClosed());
  EXPECT_TRUE(first->HasWeights());
  EXPECT_TRUE(second.HasWeights());
  const wire::TlsKey other_key = std::move(*wire::TlsKey::Generate());
  Cvm other(server, other_key);
  EXPECT_FALSE(other.Greet().attested);
  EXPECT_EQ(other.Present(other.MakeClaim(other.Channel())).first, Type::kAttested);

  first.reset();  // its place comes free as soon as the server has noticed
  bool admitted = false;
  for (int i = 0; !admitted && i < 500; ++i) {
    Cvm again(server, key);
    again.Send(Type::kHello, Encode(wire::Hello{}));
    admitted = again.Answer().first == Type::kHelloReply;
    if (!admitted) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(admitted);
}

TEST(AttestedServer, StrangersChangeNoProductOfAnAdmittedCvm) {
  constexpr uint32_t kRows = 200;
  const TinyStore store(kShapes);
  const auto device = std::make_shared<testing::FakeDevice>(kRows);
  ServerOptions options;
  options.test_device = device;
  const AttestedServer server(store, true, options);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm cvm(server, key);
  EXPECT_FALSE(cvm.Greet().attested);
  EXPECT_EQ(cvm.Present(cvm.MakeClaim(cvm.Channel())).first, Type::kAttested);
  std::vector<std::unique_ptr<Client>> silent;
  std::vector<std::unique_ptr<Cvm>> greeted;
  std::vector<wire::TlsKey> keys;
  for (int i = 0; i < 8; ++i) {
    silent.push_back(std::make_unique<Client>(server.server->address));
    keys.push_back(std::move(*wire::TlsKey::Generate()));
    greeted.push_back(std::make_unique<Cvm>(server, keys.back()));
    if (i % 2 == 0) {
      EXPECT_FALSE(greeted.back()->Greet().attested);
    }
  }
  device->ForgetCalls();
  cvm.Send(Type::kMultiply, Product(store, kRows));
  EXPECT_EQ(cvm.Answer().first, Type::kProduct);
  ASSERT_EQ(device->calls().size(), 1u);
  EXPECT_EQ(device->calls()[0].rows, std::vector<size_t>{kRows});
}

TEST(AttestedServer, PlaintextGetsNothing) {
  const TinyStore store(kShapes);
  const AttestedServer server(store);
  Client client(server.server->address);
  client.timeout_ms = 2000;
  EXPECT_FALSE(client.Greet().ok());
}

TEST(AttestedServer, GoodEvidenceOpensTheChannelAndFurtherOnesOfTheSameKey) {
  const TinyStore store(kShapes);
  AttestedServer server(store);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm cvm(server, key);
  EXPECT_FALSE(cvm.Greet().attested);
  EXPECT_EQ(cvm.Present(cvm.MakeClaim(cvm.Channel())).first, Type::kAttested);
  EXPECT_TRUE(cvm.HasWeights());

  Cvm second(server, key);
  EXPECT_TRUE(second.Greet().attested);
  EXPECT_TRUE(second.HasWeights());
  const wire::TlsKey other = std::move(*wire::TlsKey::Generate());
  Cvm stranger(server, other);  // without the attested key
  EXPECT_FALSE(stranger.Greet().attested);
  EXPECT_FALSE(stranger.HasWeights());

  server.seconds = 3602;  // max_age is over: open connections end, and new ones are asked
  EXPECT_FALSE(cvm.HasWeights());
  EXPECT_FALSE(second.HasWeights());
  Cvm third(server, key);
  EXPECT_FALSE(third.Greet().attested);
  EXPECT_EQ(third.Present(third.MakeClaim(third.Channel())).first, Type::kAttested);
  EXPECT_TRUE(third.HasWeights());
}

TEST(AttestedServer, ANonceIsUsedOnce) {
  const TinyStore store(kShapes);
  const AttestedServer server(store);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm cvm(server, key);
  cvm.Greet();
  const Claim claim = cvm.MakeClaim(cvm.Channel());
  EXPECT_EQ(cvm.Present(claim).first, Type::kAttested);
  EXPECT_EQ(cvm.Present(claim), std::pair(Type::kError, ErrorCode::kBadRequest));
  Cvm early(server, key);  // evidence that nobody asked for
  early.Send(Type::kAttest, Encode(claim));
  EXPECT_EQ(early.Answer(), std::pair(Type::kError, ErrorCode::kBadRequest));
}

// Each changes one thing; one error, and no weights, whatever it was.
TEST(AttestedServer, EveryOtherEvidenceIsRefused) {
  const TinyStore store(kShapes);
  const AttestedServer server(store);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  const wire::TlsKey other_key = std::move(*wire::TlsKey::Generate());
  Cvm elsewhere(server, other_key);
  elsewhere.Greet();
  const attest::Channel elsewhere_channel = elsewhere.Channel();
  using Change = std::function<Buffer(Cvm&)>;
  const auto with = [](auto change) -> Change {
    return [change](Cvm& cvm) {
      attest::Channel channel = cvm.Channel();
      attest::SimulatedOptions machine = Cvm::Good();
      change(cvm.context, channel, machine);
      return Encode(cvm.MakeClaim(channel, machine));
    };
  };
  using C = Context;
  using Ch = attest::Channel;
  using M = attest::SimulatedOptions;
  const std::map<std::string, Change> changes = {
      {"stale nonce", with([](C&, Ch& ch, M&) { ch.nonce[0] ^= 1; })},
      {"another session", with([](C&, Ch& ch, M&) { ch.exporter[31] ^= 1; })},
      {"relayed from another CVM", with([&](C&, Ch& ch, M&) { ch = elsewhere_channel; })},
      {"another CVM key", with([](C&, Ch& ch, M&) { ch.cvm_key[0] ^= 1; })},
      {"for another provider", with([](C&, Ch& ch, M&) { ch.peer_key[0] ^= 1; })},
      {"role", with([](C&, Ch& ch, M&) { ch.role = attest::Role::kServerToClient; })},
      {"model", with([](C& c, Ch&, M&) { c.model_identity[0] ^= 1; })},
      {"profile", with([](C& c, Ch&, M&) { c.profile = 2; })},
      {"one check vector", with([](C& c, Ch&, M&) { c.check_vectors = 1; })},
      {"measurement", with([](C&, Ch&, M& m) { m.measurement[47] ^= 1; })},
      {"debug guest", with([](C&, Ch&, M& m) { m.debug = true; })},
      {"older TCB", with([](C&, Ch&, M& m) { m.machine = SimulatedMachine::kOlderTcb; })},
      {"another chip", with([](C&, Ch&, M& m) { m.machine = SimulatedMachine::kOtherChip; })},
      {"revoked", with([](C&, Ch&, M& m) { m.machine = SimulatedMachine::kRevoked; })},
      {"context changed afterwards",
       [](Cvm& cvm) {
         Claim claim = cvm.MakeClaim(cvm.Channel());
         claim.context.tenant_key[0] ^= 1;
         return Encode(claim);
       }},
      {"labelled as genuine",
       [](Cvm& cvm) {
         Claim claim = cvm.MakeClaim(cvm.Channel());
         claim.evidence.type = attest::EvidenceType::kSevSnp;
         return Encode(claim);
       }},
      {"cut short",
       [](Cvm& cvm) {
         Buffer bytes = Encode(cvm.MakeClaim(cvm.Channel()));
         bytes.pop_back();
         return bytes;
       }},
  };
  for (const auto& [what, make] : changes) {
    Cvm cvm(server, key);
    EXPECT_FALSE(cvm.Greet().attested) << what;
    cvm.Send(Type::kAttest, make(cvm));
    EXPECT_EQ(cvm.Answer(), kRefused) << what;
    EXPECT_FALSE(cvm.HasWeights()) << what;
  }
}

TEST(AttestedServer, SimulatedEvidenceCountsForNothingUnlessAskedFor) {
  const TinyStore store(kShapes);
  const AttestedServer server(store, /*take_simulated=*/false);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm cvm(server, key);
  cvm.Greet();
  EXPECT_EQ(cvm.Present(cvm.MakeClaim(cvm.Channel())), kRefused);
  EXPECT_FALSE(cvm.HasWeights());
}

TEST(AttestedServer, AKeyThatFailsLaterIsNoLongerAdmitted) {
  const TinyStore store(kShapes);
  AttestedServer server(store);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm first(server, key), second(server, key);
  first.Greet();
  second.Greet();
  EXPECT_EQ(first.Present(first.MakeClaim(first.Channel())).first, Type::kAttested);
  attest::SimulatedOptions debug = Cvm::Good();
  debug.debug = true;
  EXPECT_EQ(second.Present(second.MakeClaim(second.Channel(), debug)), kRefused);
  Cvm third(server, key);
  EXPECT_FALSE(third.Greet().attested);
}

TEST(AttestedServer, APolicyForAnotherModelIsRefusedAtTheStart) {
  const TinyStore store(kShapes);
  const Digest identity = model::Store::Open(store.path())->identity();
  Digest other = identity;
  other[0] ^= 1;
  ServerOptions options = TestOptions(store);
  options.insecure_plaintext = false;
  options.local_only = true;
  const auto create = [&](const Digest& accepted) {
    options.gate = std::make_shared<Gate>(GateOptions{
        .key = *wire::TlsKey::Generate(),
        .verifier = *attest::Verifier::Create(
            {.policy = TestPolicy(accepted),
             .collateral = {},
             .simulated =
                 attest::SimulatedTrust{attest::SimulatedRoots(), attest::SimulatedCrl()}}),
        .now = [] { return kNow; },
        .steady_now = [] { return Gate::Time{}; }});
    return Server::Create(options).status();
  };
  EXPECT_TRUE(create(identity).ok());
  const Status status = create(other);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("policy does not accept the model"));
  EXPECT_THAT(status.message(), ::testing::HasSubstr(ToHex(identity)));
}

// Whether the server ends the connection without a word, while a byte is sent now and then.
bool IsCut(wire::Transport& transport, Bytes drip) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::array<uint8_t, 4096> out;
  while (std::chrono::steady_clock::now() < end) {
    if (!drip.empty()) {
      if (!transport.Send({drip.first(1)}, kTimeoutMs).ok()) return true;
      drip = drip.subspan(1);
    }
    const auto received = transport.ReceiveSome(out, 1, 50);
    if (received.ok()) return false;
    if (received.status().message().find("no progress") == std::string::npos) return true;
  }
  return false;
}

TEST(AttestedServer, StrangersHaveOneDeadlineHoweverTheyDrip) {
  const TinyStore store(kShapes);
  ServerOptions options;
  options.hello_timeout_ms = options.evidence_timeout_ms = 300;
  options.frame_timeout_ms = 60'000;  // from progress to progress: never over
  options.max_connections = 2;        // places come free
  const AttestedServer server(store, true, options);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  const auto connect = [&] {
    return *wire::Connect(*wire::Endpoint::Parse(server.server->address), kTimeoutMs);
  };
  const auto tls = [&] {
    return wire::TlsConnect(connect(), key, wire::PeerKey::Pinned(server.provider_key), kTimeoutMs);
  };
  // The head of a handshake record of 15,995 bytes, of a Hello of 7 and of evidence of 200.
  const Buffer handshake = {0x16, 3, 1, 0x3e, 0x7b, 1, 0, 0x3e, 0x77, 3, 3, 1, 2, 3, 4, 5};
  const Buffer hello = {7, 0, 0, 0, static_cast<uint8_t>(Type::kHello), wire::kProtocolVersion};
  const Buffer attest = {200, 0, 0, 0, static_cast<uint8_t>(Type::kAttest), 1, 0, 1, 1, 1, 1, 1};
  EXPECT_TRUE(IsCut(*connect(), {})) << "silent from the start";
  EXPECT_TRUE(IsCut(*connect(), handshake)) << "drips its handshake";
  // A machine that is slower than the deadline has no handshake to go on with.
  if (auto silent = tls(); silent.ok()) {
    EXPECT_TRUE(IsCut(**silent, {})) << "silent after the handshake";
  }
  if (auto drips = tls(); drips.ok()) {
    EXPECT_TRUE(IsCut(**drips, hello)) << "drips its Hello";
  }
  for (const bool drip : {false, true}) {
    auto transport = tls();
    if (!transport.ok()) continue;
    wire::TlsTransport& inner = **transport;
    wire::Connection greets(std::move(*transport), wire::kMaxFrameBytes);
    (void)greets.Send(Type::kHello, {Encode(wire::Hello{})}, kTimeoutMs);
    (void)greets.Receive(kTimeoutMs);
    EXPECT_TRUE(IsCut(inner, drip ? Bytes(attest) : Bytes())) << "greets, and drips: " << drip;
  }
}

TEST(AttestedServer, WhoIsAdmittedHasNoDeadline) {
  const TinyStore store(kShapes);
  ServerOptions options;
  options.hello_timeout_ms = options.evidence_timeout_ms = 3'000;
  const AttestedServer server(store, true, options);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm first(server, key);
  first.Greet();
  ASSERT_EQ(first.Present(first.MakeClaim(first.Channel())).first, Type::kAttested);
  Cvm second(server, key);
  ASSERT_TRUE(second.Greet().attested);
  std::this_thread::sleep_for(std::chrono::milliseconds(3'200));
  EXPECT_TRUE(first.HasWeights());
  EXPECT_TRUE(second.HasWeights());
}

// Its time to be silent stays bounded when its admission ends between two requests: it is no
// stranger, whose deadline would count instead.
TEST(AttestedServer, WhoseAdmissionHasEndedMayNotStaySilentForEver) {
  class LastMinute final : public CallObserver {
   public:
    void OnMultiply(uint64_t, const wire::MultiplyHeader&, Bytes) override { *seconds = 4000; }
    std::atomic<int>* seconds = nullptr;
  };
  const TinyStore store(kShapes);
  const auto observer = std::make_shared<LastMinute>();
  ServerOptions options;
  options.observer = observer;
  options.idle_timeout_ms = 200;
  AttestedServer server(store, true, options);
  observer->seconds = &server.seconds;
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  Cvm cvm(server, key);
  cvm.Greet();
  ASSERT_EQ(cvm.Present(cvm.MakeClaim(cvm.Channel())).first, Type::kAttested);
  uint8_t header[wire::kCallHeaderBytes];
  EncodeTo(wire::MultiplyHeader{1, 0, 1}, header);
  Buffer body(header, header + sizeof(header));
  const Buffer planes = store.Planes(0, 1, 1);
  body.insert(body.end(), planes.begin(), planes.end());
  cvm.Send(Type::kMultiply, body);
  ASSERT_EQ(cvm.Answer().first, Type::kProduct);
  EXPECT_TRUE(cvm.IsClosed());
}

TEST(AttestedServer, StrangersCannotFillTheLog) {
  const TinyStore store(kShapes);
  const AttestedServer server(store, true, {}, LogLevel::kWarning);
  const wire::TlsKey key = std::move(*wire::TlsKey::Generate());
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 20; ++i) {
    auto transport = *wire::Connect(*wire::Endpoint::Parse(server.server->address), kTimeoutMs);
    EXPECT_TRUE(transport->Send({AsBytes("GET / HTTP/1.1\r\n\r\n")}, kTimeoutMs).ok());
    std::array<uint8_t, 64> alert;
    while (transport->ReceiveSome(alert, 1, kTimeoutMs).ok()) {
    }
  }
  // Why a CVM is refused is told all the same.
  Cvm cvm(server, key);
  cvm.Greet();
  attest::SimulatedOptions debug = Cvm::Good();
  debug.debug = true;
  EXPECT_EQ(cvm.Present(cvm.MakeClaim(cvm.Channel(), debug)), kRefused);
  server.server->Stop();
  const std::string said = ::testing::internal::GetCapturedStderr();
  size_t lines = 0;
  for (size_t at = 0; (at = said.find("refused a connection", at)) != std::string::npos; ++at)
    ++lines;
  EXPECT_EQ(lines, 5u) << said;
  EXPECT_THAT(said, ::testing::HasSubstr("refused a CVM: not trusted: snp-debug"));
}

TEST(AttestedServer, StopDoesNotWaitForAHandshakeThatStalls) {
  const TinyStore store(kShapes);
  AttestedServer server(store);
  auto silent = *wire::Connect(*wire::Endpoint::Parse(server.server->address), kTimeoutMs);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LT(server.server->Stop(), 3000);
}

}  // namespace
}  // namespace talaria::cloud
