#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/attested_chain.h"
#include "bench/commands.h"
#include "bench/http_connection.h"
#include "bench/laboratory.h"
#include "bench/llama_bench.h"
#include "bench/statistics.h"
#include "talaria/attest/policy_file.h"
#include "talaria/attest/simulated/simulated_attester.h"
#include "talaria/client/secure_connection.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kTimeoutMs = 60'000;
constexpr size_t kPaddingBytes = 512;  // as the client pads
constexpr int kWarmUpRounds = 5;
constexpr double kHandshakeGoalMs = 50, kProxyGoalMs = 1;

double Ms(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

using Samples = std::vector<double>;  // milliseconds, one per round

double Quantile(Samples samples, double q) {
  std::sort(samples.begin(), samples.end());
  const auto last = static_cast<double>(samples.size() - 1);
  return samples[static_cast<size_t>(q * last + 0.5)];
}

Samples Difference(const Samples& a, const Samples& b) {
  Samples out(a.size());
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] - b[i];
  return out;
}

// The median's 95 % confidence interval, from ranks: no shape of the noise is assumed.
std::array<double, 2> MedianInterval(const Samples& samples) {
  const auto n = static_cast<double>(samples.size());
  const double half = 0.98 / std::sqrt(n);
  return {Quantile(samples, std::max(0.0, 0.5 - half)),
          Quantile(samples, std::min(1.0, 0.5 + half))};
}

void Head(const std::string& name) {
  std::printf("%-58s %8s %17s %8s\n", (name + ", ms").c_str(), "median", "95 % of it", "p99");
}

Json Row(const char* name, const Samples& ms) {
  const double median = Summarise(ms).median, p99 = Quantile(ms, 0.99);
  const auto [low, high] = MedianInterval(ms);
  std::printf("  %-56s %8.2f %8.2f-%8.2f %8.2f\n", name, median, low, high, p99);
  return {{"median_ms", median}, {"median_interval_ms", {low, high}}, {"p99_ms", p99}};
}

std::string LoadAverage() {
  std::ifstream file("/proc/loadavg");
  std::string one;
  file >> one;
  return one;
}

// The user's side, as `talaria` makes it.
struct User {
  client::ServerOptions server;
  attest::Verifier verifier;
  wire::TlsKey key;
  std::string token;
};

Result<User> MakeUser(const AttestedChain& chain) {
  TALARIA_ASSIGN_OR_RETURN(attest::Policy policy, attest::LoadPolicy(chain.policy()));
  TALARIA_ASSIGN_OR_RETURN(
      attest::Verifier verifier,
      attest::Verifier::Create(
          {.policy = std::move(policy),
           .collateral = {},
           .simulated = attest::SimulatedTrust{attest::SimulatedRoots(), attest::SimulatedCrl()}}));
  TALARIA_ASSIGN_OR_RETURN(wire::TlsKey key, wire::TlsKey::Generate());
  TALARIA_ASSIGN_OR_RETURN(wire::Endpoint endpoint, client::ParseServer(chain.front()));
  return User{
      {.endpoint = std::move(endpoint)}, std::move(verifier), std::move(key), chain.token()};
}

// --- The handshake

struct Handshakes {
  Samples tls;        // TCP and TLS 1.3, both keys shown: until the client may send
  Samples verified;   // the same, then nonce, evidence, verification: until the client may send
  Samples answered;   // `verified`, then the first request with a token, until its answer is there
  Samples pinned;     // a further connection of an attested key, and its first answer
  Samples verifying;  // the client's verification alone
};

Result<std::unique_ptr<wire::TlsTransport>> DialTls(const User& user, const wire::PeerKey& peer) {
  TALARIA_ASSIGN_OR_RETURN(auto transport, wire::Connect(user.server.endpoint, kTimeoutMs));
  return wire::TlsConnect(std::move(transport), user.key, peer, kTimeoutMs,
                          {.padding_bytes = kPaddingBytes});
}

// What needs a token and nothing of the engine.
Status FirstRequest(const User& user, client::SecureConnection& connection) {
  bool closes = false;
  return Exchange(
             HttpRequest{"GET", "/readyz", "", user.token}.Text(),
             [&](Bytes bytes) { return connection.stream().Send({bytes}, kTimeoutMs); },
             [&](MutableBytes out) {
               return connection.stream().ReadSome(out, client::After(kTimeoutMs));
             },
             &closes)
      .status();
}

Status HandshakeRound(const User& user, bool keep, Handshakes& out) {
  const attest::UnixTime now = std::time(nullptr);
  const auto add = [keep](Samples& samples, double ms) {
    if (keep) samples.push_back(ms);
  };
  std::shared_ptr<const client::Attested> attested;
  {
    const auto start = Clock::now();
    TALARIA_RETURN_IF_ERROR(DialTls(user, wire::PeerKey::Any()).status());
    add(out.tls, Ms(start));
  }
  {
    const auto start = Clock::now();
    TALARIA_ASSIGN_OR_RETURN(const auto connection, client::SecureConnection::Open(
                                                        user.server, user.verifier, user.key, now));
    const double verified = Ms(start);
    TALARIA_RETURN_IF_ERROR(FirstRequest(user, *connection));
    add(out.answered, Ms(start));
    add(out.verified, verified);
    attested = connection->attested();
  }
  {
    const auto start = Clock::now();
    TALARIA_ASSIGN_OR_RETURN(
        const auto connection,
        client::SecureConnection::OpenPinned(user.server, user.verifier, user.key, attested));
    TALARIA_RETURN_IF_ERROR(FirstRequest(user, *connection));
    add(out.pinned, Ms(start));
  }
  TALARIA_ASSIGN_OR_RETURN(const client::UnverifiedClaim claim,
                           client::SecureConnection::FetchUnverified(user.server, user.key));
  const auto start = Clock::now();
  TALARIA_RETURN_IF_ERROR(user.verifier.Verify(claim.claim, claim.channel, now).status());
  add(out.verifying, Ms(start));
  return OkStatus();
}

// --- A request, three ways

enum Way { kDirect, kFront, kProxy, kWays };

struct Workload {
  const char* name;
  HttpRequest request;
  std::array<Samples, kWays> ms = {};
};

// What must be the same on all ways: the text of a completion, the name of the model.
std::string Content(const std::string& body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return {};
  for (const char* path : {"/choices/0/text", "/data/0/object"}) {
    const Json::json_pointer pointer(path);
    if (json.contains(pointer) && json.at(pointer).is_string())
      return json.at(pointer).get<std::string>();
  }
  return {};
}

Status RequestRound(int round, const std::string& token,
                    std::array<HttpConnection*, kWays> connections, Workload& work) {
  std::array<std::string, kWays> contents;
  for (int step = 0; step < kWays; ++step) {
    const int way = (round + kWarmUpRounds + step) % kWays;  // none is always the first
    HttpRequest request = work.request;
    if (way == kFront) request.token = token;
    auto answer = connections[static_cast<size_t>(way)]->Ask(request);
    if (!answer.ok()) return answer.status().Annotate(work.name);
    contents[static_cast<size_t>(way)] = Content(answer->body);
    if (round >= 0) work.ms[static_cast<size_t>(way)].push_back(answer->seconds * 1e3);
  }
  if (contents[kDirect].empty() || contents[kDirect] != contents[kProxy] ||
      contents[kDirect] != contents[kFront])
    return Status(Code::kInternal, std::string(work.name) + ": the answers differ");
  return OkStatus();
}

const char* Verdict(double ms, double goal) { return ms < goal ? "met" : "MISSED"; }

Json ReportHandshakes(const Handshakes& h) {
  Json json;
  Head("handshake with the CVM's front");
  json["tls"] = Row("TCP and TLS 1.3 alone", h.tls);
  json["verified"] = Row("with evidence, verified", h.verified);
  json["answered"] = Row("with evidence, verified, first answer with a token", h.answered);
  const Samples beyond = Difference(h.answered, h.tls);
  json["beyond_tls"] = Row("  beyond TLS (differences of pairs)", beyond);
  json["verification"] = Row("  of which verification in the client", h.verifying);
  json["pinned"] = Row("a further connection to the attested key, first answer", h.pinned);
  const double median = Summarise(beyond).median;
  std::printf("  goal: less than %.0f ms beyond TLS: %s\n\n", kHandshakeGoalMs,
              Verdict(median, kHandshakeGoalMs));
  json["goal_ms"] = kHandshakeGoalMs;
  json["goal_met"] = median < kHandshakeGoalMs;
  return json;
}

Json ReportRequest(const Workload& work) {
  Json json;
  Head(work.name);
  json["direct"] = Row("llama-server's own socket", work.ms[kDirect]);
  json["front"] = Row("the CVM's front, one TLS connection", work.ms[kFront]);
  json["proxy"] = Row("talaria proxy", work.ms[kProxy]);
  json["front_cost"] = Row("  front beyond direct (differences of pairs)",
                           Difference(work.ms[kFront], work.ms[kDirect]));
  json["proxy_own_cost"] =
      Row("  proxy beyond front", Difference(work.ms[kProxy], work.ms[kFront]));
  const Samples cost = Difference(work.ms[kProxy], work.ms[kDirect]);
  json["proxy_cost"] = Row("  proxy beyond direct", cost);
  const double median = Summarise(cost).median;
  std::printf("  goal: less than %.0f ms beyond direct: %s\n\n", kProxyGoalMs,
              Verdict(median, kProxyGoalMs));
  json["goal_ms"] = kProxyGoalMs;
  json["goal_met"] = median < kProxyGoalMs;
  return json;
}

}  // namespace

Status Attest(const AttestOptions& options) {
  const Setting& s = options.setting;
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
  TALARIA_ASSIGN_OR_RETURN(const auto chain, AttestedChain::Start(s));
  TALARIA_ASSIGN_OR_RETURN(const User user, MakeUser(*chain));
  std::fprintf(stderr, "Ready: front %s, proxy %s\n", chain->front().c_str(),
               chain->proxy().c_str());

  const auto plain = [](const std::string& address) {
    return [address]() -> Result<std::unique_ptr<wire::Transport>> {
      TALARIA_ASSIGN_OR_RETURN(const wire::Endpoint endpoint, wire::Endpoint::Parse(address));
      return wire::Connect(endpoint, kTimeoutMs);
    };
  };
  TALARIA_ASSIGN_OR_RETURN(
      const auto first,
      client::SecureConnection::Open(user.server, user.verifier, user.key, std::time(nullptr)));
  const Digest cvm_key = first->attested()->key;
  HttpConnection direct(plain(chain->engine())), proxy(plain(chain->proxy()));
  HttpConnection front([&user, cvm_key]() -> Result<std::unique_ptr<wire::Transport>> {
    TALARIA_ASSIGN_OR_RETURN(auto tls, DialTls(user, wire::PeerKey::Pinned(cvm_key)));
    return std::unique_ptr<wire::Transport>(std::move(tls));
  });

  Handshakes handshakes;
  // The CVM always says cache_prompt false; said here, llama-server does the same on all ways.
  std::array<Workload, 2> works = {
      Workload{"GET /v1/models", {"GET", "/v1/models", "", ""}},
      Workload{"completion of one token",
               {"POST", "/v1/completions",
                R"({"prompt":"The","max_tokens":1,"temperature":0,"seed":1,"cache_prompt":false})",
                ""}}};
  const std::string load = LoadAverage();
  for (int round = -kWarmUpRounds; round < options.rounds; ++round) {
    TALARIA_RETURN_IF_ERROR(HandshakeRound(user, round >= 0, handshakes));
    for (Workload& work : works)
      TALARIA_RETURN_IF_ERROR(RequestRound(round, user.token, {&direct, &front, &proxy}, work));
    if (round > 0 && round % 50 == 0) std::fprintf(stderr, "round %d\n", round);
  }

  Json json;
  json["handshake"] = ReportHandshakes(handshakes);
  for (const Workload& work : works) json["requests"][work.name] = ReportRequest(work);
  const std::string load_after = LoadAverage();
  std::printf(
      "%d interleaved rounds on loopback, simulated TEE; load average %s before, %s after\n",
      options.rounds, load.c_str(), load_after.c_str());
  json["rounds"] = options.rounds;
  json["load_average"] = {load, load_after};
  json["model"] = s.model;
  json["machine"] = Json::parse(MachineJson());
  json["group"] = first->attested()->group;
  json["tee"] = "simulated";
  return WriteJson(json, options.json);
}

}  // namespace talaria::bench
