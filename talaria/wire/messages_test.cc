#include "talaria/wire/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <sstream>

#include "talaria/base/file.h"
#include "talaria/wire/connection.h"
#include "talaria/wire/testing/memory_transport.h"

namespace talaria::wire {
namespace {

using Body = std::vector<uint8_t>;

// Decodes a body as `type` and encodes the result again; nullopt when it was refused.
std::optional<Body> Recode(Type type, Bytes body) {
  Bytes rest;
  const auto with_rest = [&rest](const auto& header, size_t size) {
    Body out(size);
    EncodeTo(header, out.data());
    out.insert(out.end(), rest.begin(), rest.end());
    return out;
  };
  const auto recode = [](const auto& decoded) {
    return decoded.ok() ? std::optional(Encode(*decoded)) : std::nullopt;
  };
  switch (type) {
    case Type::kHello:
      return recode(DecodeHello(body));
    case Type::kHelloReply:
      return recode(DecodeHelloReply(body));
    case Type::kFetch:
      return recode(DecodeFetch(body));
    case Type::kError:
      return recode(DecodeError(body));
    case Type::kChunk: {
      const auto m = DecodeChunk(body, &rest);
      return m.ok() ? std::optional(with_rest(*m, kChunkHeaderBytes)) : std::nullopt;
    }
    case Type::kMultiply: {
      const auto m = DecodeMultiply(body, &rest);
      return m.ok() ? std::optional(with_rest(*m, kCallHeaderBytes)) : std::nullopt;
    }
    case Type::kProduct: {
      const auto m = DecodeProduct(body, &rest);
      return m.ok() ? std::optional(with_rest(*m, kCallHeaderBytes)) : std::nullopt;
    }
    case Type::kPing:
    case Type::kPong:
    case Type::kDrain:
    case Type::kAttested:
      return DecodeEmpty(body).ok() ? std::optional(Body()) : std::nullopt;
    case Type::kAttest:  // attest/claim_test.cc
      break;
  }
  return std::nullopt;
}

bool HasTail(Type type) {
  return type == Type::kChunk || type == Type::kMultiply || type == Type::kProduct;
}

template <class Header>
Body WithTail(const Header& header, size_t header_bytes, const Body& tail) {
  Body out(header_bytes);
  EncodeTo(header, out.data());
  out.insert(out.end(), tail.begin(), tail.end());
  return out;
}

// The messages of the worked example in doc/wire.md.
std::map<std::string, std::pair<Type, Body>> Examples() {
  HelloReply reply;
  for (size_t i = 0; i < 32; ++i) {
    reply.identity[i] = static_cast<uint8_t>(i);
    reply.nonce[i] = static_cast<uint8_t>(0xe0 + i % 16);
  }
  reply.manifest_bytes = 1500;
  const model::StreamId weights{model::StreamKind::kWeights, 0};
  const uint64_t row[2] = {1, (uint64_t{1} << 48) - 16384};  // 1 and q - 1
  Body planes(6 * 64);
  for (size_t digit = 0; digit < 6; ++digit) {
    for (size_t i = 0; i < 2; ++i)
      planes[digit * 64 + i] = static_cast<uint8_t>(row[i] >> (8 * digit));
  }
  Body residues(32 * 6);
  residues[0] = 2;
  return {
      {"Hello", {Type::kHello, Encode(Hello{})}},
      {"HelloReply", {Type::kHelloReply, Encode(reply)}},
      {"Fetch", {Type::kFetch, Encode(Fetch{weights, 0, 2})}},
      {"Chunk", {Type::kChunk, WithTail(ChunkHeader{weights, 0}, kChunkHeaderBytes, {3, 1})}},
      {"Multiply", {Type::kMultiply, WithTail(MultiplyHeader{7, 0, 1}, kCallHeaderBytes, planes)}},
      {"Product", {Type::kProduct, WithTail(ProductHeader{7, 0, 1}, kCallHeaderBytes, residues)}},
      {"Error", {Type::kError, Encode(ErrorMessage{ErrorCode::kBadRequest})}},
      {"Ping", {Type::kPing, {}}},
      {"Pong", {Type::kPong, {}}},
      {"Drain", {Type::kDrain, {}}},
      {"Attested", {Type::kAttested, {}}},
  };
}

// The blocks "```hex NAME" of the document: two-digit bytes, NN*COUNT, # comments.
std::map<std::string, Body> ReadDocument() {
  const auto file = ReadFile(TALARIA_WIRE_DOC, 1 << 20);
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  std::istringstream text(std::string(file->begin(), file->end()));
  std::map<std::string, Body> out;
  Body* block = nullptr;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("```")) {
      block = nullptr;
      if (line.starts_with("```hex ")) block = &out[line.substr(7)];
      continue;
    }
    if (block == nullptr) continue;
    std::istringstream words(line.substr(0, line.find('#')));
    for (std::string word; words >> word;) {
      uint8_t byte = 0;
      EXPECT_TRUE(FromHex(word.substr(0, 2), MutableBytes(&byte, 1))) << line;
      EXPECT_TRUE(word.size() == 2 || (word.size() > 3 && word[2] == '*')) << line;
      block->insert(block->end(), word.size() == 2 ? 1 : std::stoul(word.substr(3)), byte);
    }
  }
  return out;
}

TEST(MessagesTest, TheDocumentsBytesAreWhatIsSent) {
  const std::map<std::string, Body> document = ReadDocument();
  const auto examples = Examples();
  EXPECT_EQ(document.size(), examples.size());
  for (const auto& [name, message] : examples) {
    Body sent;
    Connection connection(std::make_unique<MemoryTransport>(Bytes(), 1, &sent), kMaxFrameBytes);
    ASSERT_TRUE(connection.Send(message.first, {message.second}, 0).ok());
    ASSERT_TRUE(document.contains(name)) << name;
    EXPECT_EQ(ToHex(document.at(name)), ToHex(sent)) << name;
  }
}

TEST(MessagesTest, TheDocumentsBytesAreWhatIsReceived) {
  const std::map<std::string, Body> document = ReadDocument();
  for (const auto& [name, message] : Examples()) {
    ASSERT_TRUE(document.contains(name)) << name;
    Connection connection(std::make_unique<MemoryTransport>(document.at(name), 1000, nullptr),
                          kMaxFrameBytes);
    const Result<Frame> frame = connection.Receive(0);
    ASSERT_TRUE(frame.ok()) << frame.status().ToString();
    EXPECT_EQ(frame->type, message.first);
    EXPECT_EQ(Body(frame->body.begin(), frame->body.end()), message.second) << name;
    EXPECT_EQ(Recode(frame->type, frame->body), message.second) << name;
  }
}

TEST(MessagesTest, FieldsSurviveTheRoundTrip) {
  std::mt19937_64 random(20240601);
  for (int i = 0; i < 200; ++i) {
    HelloReply reply;
    for (uint8_t& b : reply.identity) b = static_cast<uint8_t>(random());
    reply.manifest_bytes = 1 + static_cast<uint32_t>(random() % 1000);
    reply.attested = i % 2 == 0;
    if (!reply.attested) reply.nonce[random() % 32] = static_cast<uint8_t>(1 + random() % 255);
    reply.max_frame_bytes =
        static_cast<uint32_t>(kMinFrameLimit + random() % (kMaxFrameBytes - kMinFrameLimit + 1));
    const auto reply2 = DecodeHelloReply(Encode(reply));
    ASSERT_TRUE(reply2.ok());
    EXPECT_EQ(reply2->identity, reply.identity);
    EXPECT_EQ(reply2->max_frame_bytes, reply.max_frame_bytes);
    EXPECT_EQ(reply2->version, kProtocolVersion);
    EXPECT_EQ(reply2->manifest_bytes, reply.manifest_bytes);
    EXPECT_EQ(reply2->attested, reply.attested);
    EXPECT_EQ(reply2->nonce, reply.nonce);

    const auto hello = DecodeHello(Encode(Hello{.max_frame_bytes = reply.max_frame_bytes}));
    ASSERT_TRUE(hello.ok());
    EXPECT_EQ(hello->max_frame_bytes, reply.max_frame_bytes);

    const auto kind = static_cast<model::StreamKind>(2 + random() % 3);
    const Fetch fetch{{kind, static_cast<uint32_t>(random())},
                      random(),
                      1 + static_cast<uint32_t>(random() % kMaxChunkBytes)};
    const auto fetch2 = DecodeFetch(Encode(fetch));
    ASSERT_TRUE(fetch2.ok());
    EXPECT_EQ(fetch2->stream, fetch.stream);
    EXPECT_EQ(fetch2->offset, fetch.offset);
    EXPECT_EQ(fetch2->bytes, fetch.bytes);

    Bytes rest;
    const MultiplyHeader call{random(), static_cast<uint32_t>(random()),
                              1 + static_cast<uint32_t>(random() % 1000)};
    const Body body = WithTail(call, kCallHeaderBytes, {9, 8, 7});
    const auto call2 = DecodeMultiply(body, &rest);
    ASSERT_TRUE(call2.ok());
    EXPECT_EQ(call2->call, call.call);
    EXPECT_EQ(call2->group, call.group);
    EXPECT_EQ(call2->rows, call.rows);
    EXPECT_THAT(rest, testing::ElementsAre(9, 8, 7));
  }
}

TEST(MessagesTest, EveryTruncationIsRefused) {
  for (const auto& [name, message] : Examples()) {
    const auto& [type, body] = message;
    // A tail may be cut, its owner knows its size; what stands before it may not, and one byte of
    // tail must be left.
    size_t fixed = body.size();
    if (type == Type::kChunk) fixed = kChunkHeaderBytes + 1;
    if (type == Type::kMultiply || type == Type::kProduct) fixed = kCallHeaderBytes + 1;
    for (size_t size = 0; size < fixed; ++size) {
      EXPECT_FALSE(Recode(type, Bytes(body).first(size)).has_value()) << name << " cut to " << size;
    }
  }
}

TEST(MessagesTest, NothingMayFollow) {
  for (const auto& [name, message] : Examples()) {
    const auto& [type, body] = message;
    if (HasTail(type)) continue;
    for (int extra = 0; extra < 256; ++extra) {
      Body longer = body;
      longer.push_back(static_cast<uint8_t>(extra));
      EXPECT_FALSE(Recode(type, longer).has_value()) << name << " and " << extra;
    }
  }
}

TEST(MessagesTest, WhateverIsAcceptedIsCanonical) {
  std::mt19937_64 random(7);
  int accepted = 0, refused = 0;
  for (const auto& [name, message] : Examples()) {
    const auto& [type, body] = message;
    for (int i = 0; i < 3000 && !body.empty(); ++i) {
      Body mutated = body;
      for (uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
        mutated[random() % std::min<size_t>(mutated.size(), 40)] = static_cast<uint8_t>(random());
      }
      const std::optional<Body> again = Recode(type, mutated);
      (again ? accepted : refused)++;
      if (again) {
        ASSERT_EQ(*again, mutated) << name;
      }
    }
  }
  EXPECT_GT(accepted, 1000);
  EXPECT_GT(refused, 1000);
}

TEST(MessagesTest, LimitsOfFields) {
  using model::StreamKind;
  const auto fetch = [](StreamKind kind, uint32_t matrix, uint32_t bytes) {
    return DecodeFetch(Encode(Fetch{{kind, matrix}, 0, bytes}));
  };
  EXPECT_TRUE(fetch(StreamKind::kHints, 5, kMaxChunkBytes).ok());
  EXPECT_EQ(fetch(StreamKind::kHints, 5, kMaxChunkBytes + 1).status().code(), Code::kCorrupt);
  EXPECT_EQ(fetch(StreamKind::kHints, 5, 0).status().code(), Code::kCorrupt);
  EXPECT_EQ(fetch(static_cast<StreamKind>(5), 0, 1).status().code(), Code::kCorrupt);
  EXPECT_TRUE(fetch(StreamKind::kManifest, 0, 1).ok());
  EXPECT_EQ(fetch(StreamKind::kManifest, 1, 1).status().code(), Code::kCorrupt);
  EXPECT_EQ(fetch(StreamKind::kSkeleton, 1, 1).status().code(), Code::kCorrupt);

  for (const uint32_t bad : {0u, kMinFrameLimit - 1, kMaxFrameBytes + 1, 0xffffffffu}) {
    EXPECT_EQ(DecodeHello(Encode(Hello{.max_frame_bytes = bad})).status().code(), Code::kCorrupt)
        << bad;
    HelloReply reply{.manifest_bytes = 1, .attested = true};
    reply.max_frame_bytes = bad;
    EXPECT_EQ(DecodeHelloReply(Encode(reply)).status().code(), Code::kCorrupt) << bad;
  }
  EXPECT_TRUE(DecodeHelloReply(Encode(HelloReply{.manifest_bytes = 1, .attested = true})).ok());
  EXPECT_FALSE(DecodeHelloReply(Encode(HelloReply{.attested = true})).ok());     // no manifest
  EXPECT_FALSE(DecodeHelloReply(Encode(HelloReply{.manifest_bytes = 1})).ok());  // a zero nonce
  EXPECT_FALSE(  // a nonce for nothing
      DecodeHelloReply(Encode(HelloReply{.manifest_bytes = 1, .attested = true, .nonce = {1}}))
          .ok());
  Body flag = Encode(HelloReply{.manifest_bytes = 1, .attested = true});
  flag[flag.size() - 33] = 2;
  EXPECT_FALSE(DecodeHelloReply(flag).ok());
  for (const int bad : {0, 7, 256, 0xffff}) {
    EXPECT_EQ(DecodeError(Encode(ErrorMessage{static_cast<ErrorCode>(bad)})).status().code(),
              Code::kCorrupt)
        << bad;
  }
  Bytes rest;
  EXPECT_EQ(DecodeMultiply(WithTail(MultiplyHeader{1, 2, 0}, kCallHeaderBytes, {1}), &rest)
                .status()
                .code(),
            Code::kCorrupt);
  EXPECT_EQ(
      DecodeProduct(WithTail(ProductHeader{1, 2, 0}, kCallHeaderBytes, {1}), &rest).status().code(),
      Code::kCorrupt);
  const ChunkHeader chunk{{StreamKind::kHints, 1}, 0};
  EXPECT_TRUE(DecodeChunk(WithTail(chunk, kChunkHeaderBytes, Body(kMaxChunkBytes)), &rest).ok());
  EXPECT_EQ(DecodeChunk(WithTail(chunk, kChunkHeaderBytes, Body(kMaxChunkBytes + 1)), &rest)
                .status()
                .code(),
            Code::kCorrupt);
}

TEST(MessagesTest, AnotherVersionIsToldApartFromGarbage) {
  const Body later{3, 0, 1, 2, 3};
  EXPECT_EQ(DecodeHello(later).status().code(), Code::kUnsupported);
  EXPECT_EQ(DecodeHelloReply(later).status().code(), Code::kUnsupported);
  EXPECT_EQ(DecodeHello(Body{3}).status().code(), Code::kCorrupt);
}

TEST(MessagesTest, TypesAreOneToTwelve) {
  for (int value = 0; value < 256; ++value)
    EXPECT_EQ(IsType(static_cast<uint8_t>(value)), value >= 1 && value <= 12);
}

}  // namespace
}  // namespace talaria::wire
