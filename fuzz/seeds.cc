#include "fuzz/seeds.h"

#include "talaria/attest/claim.h"
#include "talaria/attest/receipt.h"
#include "talaria/client/release.h"
#include "talaria/model/gguf_header.h"
#include "talaria/model/manifest.h"
#include "talaria/wire/messages.h"

namespace talaria::fuzz {
namespace {

using Buffer = std::vector<uint8_t>;
using Map = std::map<std::string, Buffer>;
using wire::Type;

template <class Header>
Buffer WithTail(const Header& header, size_t header_bytes, size_t tail_bytes) {
  Buffer out(header_bytes);
  EncodeTo(header, out.data());
  out.resize(header_bytes + tail_bytes, 0x11);
  return out;
}

attest::Claim SmallClaim() {
  return {{.version = attest::kAttestationVersion,
           .model_identity = Sha256Of({}),
           .profile = 1,
           .check_vectors = 2,
           .configuration = {},
           .tenant_key = {},
           .development = true},
          {attest::EvidenceType::kSimulated, {1, 2, 3}, {4}}};
}

std::map<std::string, std::pair<Type, Buffer>> Bodies() {
  const model::StreamId hints{model::StreamKind::kHints, 3};
  return {
      {"hello", {Type::kHello, Encode(wire::Hello{})}},
      {"hello_reply",
       {Type::kHelloReply,
        Encode(wire::HelloReply{.identity = Sha256Of({}), .manifest_bytes = 9, .nonce = {1}})}},
      {"fetch", {Type::kFetch, Encode(wire::Fetch{hints, 4096, 1024})}},
      {"chunk",
       {Type::kChunk, WithTail(wire::ChunkHeader{hints, 4096}, wire::kChunkHeaderBytes, 9)}},
      {"multiply",
       {Type::kMultiply, WithTail(wire::MultiplyHeader{1, 2, 3}, wire::kCallHeaderBytes, 18)}},
      {"product",
       {Type::kProduct, WithTail(wire::ProductHeader{1, 2, 3}, wire::kCallHeaderBytes, 18)}},
      {"error", {Type::kError, Encode(wire::ErrorMessage{wire::ErrorCode::kDraining})}},
      {"ping", {Type::kPing, {}}},
      {"pong", {Type::kPong, {}}},
      {"drain", {Type::kDrain, {}}},
      {"attest", {Type::kAttest, Encode(SmallClaim())}},
      {"attested", {Type::kAttested, {}}},
  };
}

void AddWire(Map& out) {
  Buffer conversation{6, 7};  // pieces of 7 bytes, a limit of 512
  ByteWriter writer(conversation);
  for (const auto& [name, message] : Bodies()) {
    const auto& [type, body] = message;
    Buffer& seed = out["messages/valid_" + name];
    seed.push_back(static_cast<uint8_t>(type));
    seed.insert(seed.end(), body.begin(), body.end());
    writer.U32(static_cast<uint32_t>(body.size() + 1));
    writer.U8(static_cast<uint8_t>(type));
    writer.Raw(body);
  }
  out["frames/valid"] = conversation;
  conversation.resize(conversation.size() - 3);
  out["frames/cut"] = conversation;
  out["frames/bad_length"] = {255, 0, 65, 0, 0, 0, 1};
  out["frames/bad_type"] = {0, 255, 1, 0, 0, 0, 13};
  out["frames/bad_empty"] = {0, 255, 0, 0, 0, 0, 1};
}

// Two groups: d = 2 and 64, so 64 padded inputs both; what cloud_session_target.cc serves.
void AddCloudSession(Map& out) {
  const auto frame = [](Type type, const Buffer& body) {
    Buffer bytes;
    ByteWriter writer(bytes);
    writer.U32(static_cast<uint32_t>(body.size() + 1));
    writer.U8(static_cast<uint8_t>(type));
    writer.Raw(body);
    return bytes;
  };
  const auto join = [](std::initializer_list<Buffer> frames) {
    Buffer bytes;
    for (const Buffer& f : frames) bytes.insert(bytes.end(), f.begin(), f.end());
    return bytes;
  };
  const auto fetch = [&](model::StreamKind kind, uint32_t matrix, uint64_t offset, uint32_t bytes) {
    return frame(Type::kFetch, Encode(wire::Fetch{{kind, matrix}, offset, bytes}));
  };
  const Buffer hello = frame(Type::kHello, Encode(wire::Hello{}));
  const Buffer one_row =
      frame(Type::kMultiply, WithTail(wire::MultiplyHeader{1, 0, 1}, wire::kCallHeaderBytes, 384));
  const Buffer two_rows =
      frame(Type::kMultiply, WithTail(wire::MultiplyHeader{2, 1, 2}, wire::kCallHeaderBytes, 768));
  const Buffer ping = frame(Type::kPing, {});
  out["cloud_session/valid_products"] = join({hello, one_row, two_rows, ping});
  out["cloud_session/valid_streams"] = join({hello, fetch(model::StreamKind::kManifest, 0, 0, 100),
                                             fetch(model::StreamKind::kSkeleton, 0, 900, 300),
                                             fetch(model::StreamKind::kScales, 1, 0, 132),
                                             fetch(model::StreamKind::kHints, 2, 98000, 304)});
  out["cloud_session/bad_no_hello"] = join({ping, one_row});
  out["cloud_session/bad_second_hello"] = join({hello, hello});
  out["cloud_session/bad_rows"] =
      join({hello, frame(Type::kMultiply,
                         WithTail(wire::MultiplyHeader{1, 1, 2}, wire::kCallHeaderBytes, 384))});
  out["cloud_session/bad_offset"] =
      join({hello, fetch(model::StreamKind::kWeights, 0, ~uint64_t{0}, 2)});
}

void AddManifest(Map& out) {
  model::Manifest manifest;
  manifest.model_name = "seed";
  manifest.tool_version = "0";
  manifest.skeleton_bytes = 5000;
  manifest.holes = {{1024, 64}, {2048, 96}};
  manifest.groups = {
      {.d = 8,
       .matrices = {{.name = "blk.0.attn_k.weight", .role = model::Role::kLinear, .o = 8},
                    {.name = "blk.0.attn_v.weight", .role = model::Role::kLinear, .o = 12}}},
      {.d = 8,
       .matrices = {{.name = "token_embd.weight", .role = model::Role::kTiedHead, .o = 33}}}};
  const auto add = [&out](const char* name, const std::string& text) {
    out[std::string("manifest/") + name] = Buffer(text.begin(), text.end());
  };
  const std::string text = EncodeManifest(manifest);
  add("valid", text);
  add("bad_cut", text.substr(0, text.size() / 2));
  add("bad_space", text + " ");
}

void AddGguf(Map& out) {
  Buffer keys;
  ByteWriter writer(keys);
  const auto text = [&writer](std::string_view value) {
    writer.U64(value.size());
    writer.Raw(AsBytes(value));
  };
  text("general.architecture");
  writer.U32(8);  // a string
  text("llama");
  text("general.alignment");
  writer.U32(4);  // u32
  writer.U32(32);
  std::vector<model::GgufTensor> tensors(2);
  tensors[0].name = "token_embd.weight";
  tensors[0].dimensions = 2;
  tensors[0].shape[0] = 8;
  tensors[0].shape[1] = 3;
  tensors[1].name = "blk.0.attn_q.weight";
  tensors[1].dimensions = 1;
  tensors[1].shape[0] = 40;
  tensors[1].type = model::kGgufTypeI8;
  const Buffer head = model::EncodeGgufHeader(3, 2, keys, 32, tensors);
  Buffer seed{192, 0, 0, 0};  // the file goes on for 192 bytes: 96 of floats, 40 of bytes, padded
  seed.insert(seed.end(), head.begin(), head.end());
  out["gguf_header/valid"] = seed;
  seed.resize(seed.size() - 70);
  out["gguf_header/bad_cut"] = seed;
}

void AddReceipt(Map& out) {
  attest::Receipt receipt{.time = 1'795'000'000,
                          .nonce = {1},
                          .exporter = {2},
                          .peer_key = {},
                          .key = {3},
                          .exchange = {"/v1/completions", 200, {4}, {5}},
                          .claim = SmallClaim(),
                          .signature = {6}};
  Buffer seed = Encode(receipt);
  out["receipt/valid"] = seed;
  seed.pop_back();
  out["receipt/bad_cut"] = seed;
}

void AddClient(Map& out) {
  const auto add = [&out](const char* name, const std::string& text) {
    out[name] = Buffer(text.begin(), text.end());
  };
  client::Release release{
      .name = "talaria-cvm",
      .version = "1.2.0",
      .date = "2026-11-29",
      .sev_snp = client::ReleaseMeasurements{{1}, {2}},
      .tdx = client::ReleaseTdx{.mrtd = {{{3}}}, .rtmr = {{{{{4}}}, {{{5}}}, {{{6}}}, {{{}}}}}},
      .simulated = client::ReleaseMeasurements{{7}}};
  const std::string text = client::EncodeRelease(release).value();
  add("release/valid", text);
  add("release/bad_cut", text.substr(0, text.size() - 1));
  release.tdx.reset();
  release.simulated.reset();
  add("release/valid_sev_snp", client::EncodeRelease(release).value());
  add("issuer_chain/valid", "-----BEGIN%20CERTIFICATE-----%0AMIIB%2Bw%3D%3D%0A");
  add("issuer_chain/bad_digit", "MIIB%2Gw");
  add("issuer_chain/bad_cut", "MIIB%2");
  add("issuer_chain/bad_byte", "MIIB%00");
}

}  // namespace

Map Seeds() {
  Map out;
  AddWire(out);
  AddCloudSession(out);
  AddManifest(out);
  AddGguf(out);
  AddReceipt(out);
  AddClient(out);
  return out;
}

}  // namespace talaria::fuzz
