#include "talaria/cvm/gateway_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace talaria::cvm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Filtered(BodyKind kind, std::string_view body, bool prompt_cache = false) {
  const auto out = FilterBody(kind, body, {.prompt_cache = prompt_cache});
  return out.ok() ? *out : "refused: " + out.status().message();
}

TEST(GatewayFilterTest, ListedRoutesAreFound) {
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/responses",
                           "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings",
                           "/v1/rerank", "/tokenize", "/detokenize", "/apply-template"}) {
    const RouteMatch match = FindRoute("POST", path);
    ASSERT_NE(match.route, nullptr) << path;
    EXPECT_EQ(match.route->path, path);
    EXPECT_EQ(FindRoute("GET", path).route, nullptr) << path;
    EXPECT_TRUE(FindRoute("GET", path).path_exists) << path;
  }
  EXPECT_NE(FindRoute("GET", "/v1/models").route, nullptr);
  EXPECT_EQ(FindRoute("POST", "/v1/models").route, nullptr);
}

TEST(GatewayFilterTest, TheQueryIsIgnored) {
  const RouteMatch match = FindRoute("POST", "/v1/messages?beta=true");
  ASSERT_NE(match.route, nullptr);
  EXPECT_EQ(match.route->path, "/v1/messages");
}

TEST(GatewayFilterTest, EverythingElseDoesNotExist) {
  for (const char* target : {"/",
                             "",
                             "*",
                             "/slots",
                             "/slots/0?action=save",
                             "/props",
                             "/lora-adapters",
                             "/v1/stream",
                             "/v1/stream?conv_id=1",
                             "/v1/streams/lookup",
                             "/v1/chat/completions/control",
                             "/metrics",
                             "/tools",
                             "/cors-proxy",
                             "/health",
                             "/completion",
                             "/infill",
                             "/models/load",
                             "/v1/chat/completions/",
                             "//v1/models",
                             "/v1/../slots",
                             "/v1/models/../../slots",
                             "/V1/models",
                             "/v1%2fmodels",
                             "/v1/models#x",
                             "http://host/v1/models",
                             "/v1/models/",
                             "/v1/audio/transcriptions"}) {
    for (const char* method : {"GET", "POST", "DELETE"}) {
      const RouteMatch match = FindRoute(method, target);
      EXPECT_EQ(match.route, nullptr) << method << " " << target;
      EXPECT_FALSE(match.path_exists) << target;
    }
  }
}

TEST(GatewayFilterTest, KeepsWhatTheAnswerDependsOnInItsOrder) {
  EXPECT_EQ(
      Filtered(
          BodyKind::kChat,
          R"({"messages":[{"role":"user","content":"hi"}],"model":"m","tools":[{"b":1,"a":2}],"seed":18446744073709551615,"top_p":0.1,"response_format":{"type":"json_schema"}})"),
      R"({"messages":[{"role":"user","content":"hi"}],"model":"m","tools":[{"b":1,"a":2}],"seed":18446744073709551615,"top_p":0.1,"response_format":{"type":"json_schema"},"cache_prompt":false})");
  EXPECT_EQ(Filtered(BodyKind::kTokenize, R"({"content":"a","add_special":true})"),
            R"({"content":"a","add_special":true})");
}

TEST(GatewayFilterTest, DropsWhatSteersTheServer) {
  for (const char* field : {"id_slot",
                            "slot_id",
                            "n_cache_reuse",
                            "lora",
                            "speculative.n_max",
                            "speculative.type",
                            "session",
                            "verbose",
                            "chat_format",
                            "chat_parser",
                            "grammar_triggers",
                            "grammar_lazy",
                            "grammar_type",
                            "preserved_tokens",
                            "parse_tool_calls",
                            "generation_prompt",
                            "message_delimiters",
                            "backend_sampling",
                            "reasoning_control",
                            "response_fields",
                            "input_extra",
                            "__metadata_user_id",
                            "user",
                            "metadata",
                            "store",
                            "",
                            "Messages"}) {
    for (const BodyKind kind :
         {BodyKind::kChat, BodyKind::kCompletion, BodyKind::kResponses, BodyKind::kMessages,
          BodyKind::kEmbeddings, BodyKind::kRerank, BodyKind::kTokenize, BodyKind::kDetokenize}) {
      const std::string out = Filtered(kind, "{\"" + std::string(field) + "\":1}");
      EXPECT_THAT(out, Not(HasSubstr("refused"))) << field;
      EXPECT_THAT(out, Not(HasSubstr(std::string(field) + "\":1"))) << field;
    }
  }
}

TEST(GatewayFilterTest, FieldsBelongToTheirRoute) {
  EXPECT_EQ(Filtered(BodyKind::kChat, R"({"prompt":"x"})"), R"({"cache_prompt":false})");
  EXPECT_EQ(Filtered(BodyKind::kEmbeddings, R"({"messages":[],"input":"x","cache_prompt":true})"),
            R"({"input":"x"})");
  EXPECT_EQ(Filtered(BodyKind::kMessages, R"({"system":"s","n":3,"cache_prompt":true})"),
            R"({"system":"s"})");
  EXPECT_EQ(Filtered(BodyKind::kNone, R"({"system":"s"})"), "{}");
}

TEST(GatewayFilterTest, CachePromptIsFalseUnlessAllowed) {
  EXPECT_EQ(Filtered(BodyKind::kCompletion, R"({"cache_prompt":true,"prompt":"p"})"),
            R"({"cache_prompt":false,"prompt":"p"})");
  EXPECT_EQ(Filtered(BodyKind::kCompletion, R"({"cache_prompt":true})", true),
            R"({"cache_prompt":true})");
  EXPECT_EQ(Filtered(BodyKind::kCompletion, R"({})", true), R"({})");
}

// Two spellings of one key, or one key twice: what is judged is what llama-server will see.
TEST(GatewayFilterTest, EscapedAndRepeatedKeysAreJudgedAfterDecoding) {
  EXPECT_EQ(Filtered(BodyKind::kCompletion, R"({"id\u005fslot":3,"cache\u005fprompt":true})"),
            R"({"cache_prompt":false})");
  EXPECT_EQ(Filtered(BodyKind::kCompletion, R"({"cache_prompt":false,"cache_prompt":true})"),
            R"({"cache_prompt":false})");
}

TEST(GatewayFilterTest, RefusesWhatIsNotAJsonObject) {
  for (const char* body : {"",
                           " ",
                           "{",
                           "}",
                           "[]",
                           "3",
                           "\"a\"",
                           "null",
                           "{\"a\":}",
                           "{'a':1}",
                           "{\"a\":1}x",
                           "{\"a\":NaN}",
                           "{\"a\":1e999}",
                           "{\"a\":\"\xff\"}",
                           "{\"a\":\"\\ud800\"}",
                           "{\"a\":\"\n\"}",
                           "\xef\xbb\xbf",
                           "]]]]{",
                           "{\"a\":1,}",
                           "{\"a\":\"b",
                           "{\"a\\"}) {
    EXPECT_THAT(Filtered(BodyKind::kChat, body), HasSubstr("refused")) << body;
  }
}

TEST(GatewayFilterTest, BoundsHoldExactly) {
  const auto nested = [](size_t depth) {
    return "{\"messages\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_THAT(Filtered(BodyKind::kChat, nested(kMaxJsonDepth - 1)), Not(HasSubstr("refused")));
  EXPECT_THAT(Filtered(BodyKind::kChat, nested(kMaxJsonDepth)), HasSubstr("nested too deeply"));
  EXPECT_THAT(Filtered(BodyKind::kChat, std::string(1 << 20, '[')), HasSubstr("nested too deeply"));

  const auto many = [](size_t values) {
    std::string text = "{\"prompt\":[0";
    for (size_t i = 1; i < values; ++i) text += ",0";
    return text + "]}";
  };
  EXPECT_THAT(Filtered(BodyKind::kCompletion, many(kMaxJsonValues - 2)), Not(HasSubstr("refused")));
  EXPECT_THAT(Filtered(BodyKind::kCompletion, many(kMaxJsonValues - 1)),
              HasSubstr("too many values"));

  const auto keys = [](size_t count) {
    std::string text = "{\"logit_bias\":{\"k\":0";
    for (size_t i = 1; i < count; ++i) text += ",\"" + std::to_string(i) + "\":0";
    return text + "}}";
  };
  EXPECT_THAT(Filtered(BodyKind::kCompletion, keys(kMaxJsonObjectKeys)), Not(HasSubstr("refused")));
  EXPECT_THAT(Filtered(BodyKind::kCompletion, keys(kMaxJsonObjectKeys + 1)),
              HasSubstr("too many keys"));
  // Seven large objects, but not seven hundred: everybody waits while one body is parsed.
  const auto objects = [](size_t count) {
    std::string object = "{\"0\":0";
    for (size_t i = 1; i < kMaxJsonObjectKeys; ++i) object += ",\"" + std::to_string(i) + "\":0";
    std::string text = "{\"messages\":[" + object + "}";
    for (size_t i = 1; i < count; ++i) text += "," + object + "}";
    return text + "]}";
  };
  constexpr size_t kMost =
      kMaxJsonKeySearches / (kMaxJsonObjectKeys * (kMaxJsonObjectKeys + 1) / 2);
  EXPECT_THAT(Filtered(BodyKind::kChat, objects(kMost)), Not(HasSubstr("refused")));
  EXPECT_THAT(Filtered(BodyKind::kChat, objects(kMost + 1)), HasSubstr("keys in large objects"));
  // Brackets, colons and commas inside strings do not count.
  EXPECT_THAT(Filtered(BodyKind::kCompletion, "{\"prompt\":\"" + std::string(kMaxJsonValues, ',') +
                                                  std::string(1000, '[') + "\\\"{\"}"),
              Not(HasSubstr("refused")));
}

// Each of these ends or occupies llama-server for all users, without the bound.
TEST(GatewayFilterTest, NothingThatTakesTheEngineAwayFromEverybody) {
  const auto grammar = [](size_t groups) {
    return R"({"grammar":"root ::= )" + std::string(groups, '(') + "a" + std::string(groups, ')') +
           "\"}";
  };
  EXPECT_THAT(Filtered(BodyKind::kChat, grammar(kMaxGrammarGroups)), Not(HasSubstr("refused")));
  EXPECT_THAT(Filtered(BodyKind::kChat, grammar(kMaxGrammarGroups + 1)), HasSubstr("groups"));

  // Under any name of a key, in any field, and spelt with escapes.
  for (const char* key : {"$ref", "\\u0024ref"}) {
    const auto references = [&](size_t count) {
      std::string text = R"({"messages":[],"tools":[{})";
      for (size_t i = 0; i < count; ++i) text += R"(,{"a":{")" + std::string(key) + R"(":"#/a"}})";
      return text + "]}";
    };
    EXPECT_THAT(Filtered(BodyKind::kMessages, references(kMaxSchemaReferences)),
                Not(HasSubstr("refused")));
    EXPECT_THAT(Filtered(BodyKind::kMessages, references(kMaxSchemaReferences + 1)),
                HasSubstr("references"));
  }

  const auto breakers = [](size_t count) {
    std::string text = R"({"dry_sequence_breakers":["a")";
    for (size_t i = 1; i < count; ++i) text += R"(,"a")";
    return text + "]}";
  };
  EXPECT_THAT(Filtered(BodyKind::kChat, breakers(kMaxSequenceBreakers)), Not(HasSubstr("refused")));
  EXPECT_THAT(Filtered(BodyKind::kChat, breakers(kMaxSequenceBreakers + 1)), HasSubstr("breakers"));

  for (const char* samplers : {R"(["top_k","infill"])", R"("ki")"}) {
    EXPECT_THAT(Filtered(BodyKind::kCompletion, R"({"samplers":)" + std::string(samplers) + "}"),
                HasSubstr("infilling"));
  }
  for (const char* samplers : {R"(["top_k","temperature"])", R"("kt")", "5", "[5]"}) {
    EXPECT_THAT(Filtered(BodyKind::kCompletion, R"({"samplers":)" + std::string(samplers) + "}"),
                Not(HasSubstr("refused")));
  }
}

TEST(GatewayFilterTest, ErrorsNeverQuoteTheBody) {
  for (const char* body : {"{\"CANARY\"", "CANARY", "{\"a\":CANARY}", "[\"CANARY\"]"}) {
    EXPECT_THAT(Filtered(BodyKind::kChat, body), Not(HasSubstr("CANARY"))) << body;
  }
}

TEST(GatewayFilterTest, RandomBytesNeverPassAsSomethingElse) {
  std::mt19937 rng(20240607);
  constexpr std::string_view kAlphabet = "{}[]\",:\\u0a1 eE+-.tnf\x01\xc3\xa9";
  for (int round = 0; round < 20000; ++round) {
    std::string body = round % 2 ? "{\"prompt\":" : "";
    const size_t size = rng() % 24;
    for (size_t i = 0; i < size; ++i) body += kAlphabet[rng() % kAlphabet.size()];
    if (round % 2) body += "}";
    const auto out = FilterBody(BodyKind::kCompletion, body, {});
    if (!out.ok()) continue;
    // What passed is stable: filtering it again changes nothing.
    const auto again = FilterBody(BodyKind::kCompletion, *out, {});
    ASSERT_TRUE(again.ok()) << body;
    EXPECT_EQ(*again, *out) << body;
  }
}

TEST(GatewayFilterTest, CountsTheAnswersThatARequestAsksFor) {
  const auto count = [](std::string_view body) {
    uint64_t answers = 0;
    EXPECT_TRUE(FilterBody(BodyKind::kCompletion, body, {}, &answers).ok()) << body;
    return answers;
  };
  EXPECT_EQ(count("{}"), 1u);
  EXPECT_EQ(count(R"({"n":3})"), 3u);
  EXPECT_EQ(count(R"({"n":3,"n_cmpl":5})"), 5u);
  EXPECT_EQ(count(R"({"n":0})"), 1u);
  EXPECT_EQ(count(R"({"n":-7})"), 1u);
  EXPECT_EQ(count(R"({"n":"7"})"), 1u);
  EXPECT_EQ(count(R"({"prompt":"a"})"), 1u);
  EXPECT_EQ(count(R"({"prompt":[1,2,3]})"), 1u) << "one prompt of three tokens";
  EXPECT_EQ(count(R"({"prompt":["a","b"],"n":2})"), 4u);
  EXPECT_EQ(count(R"({"prompt":[[1,2],[3]]})"), 2u);
  EXPECT_EQ(count(R"({"n":18446744073709551615})"), 1u << 20);
}

TEST(GatewayFilterTest, OnlyGeneratingRoutesGenerate) {
  for (const char* path :
       {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
    EXPECT_TRUE(FindRoute("POST", path).route->generates) << path;
  for (const char* path : {"/v1/chat/completions/input_tokens", "/v1/messages/count_tokens",
                           "/v1/embeddings", "/tokenize", "/apply-template"})
    EXPECT_FALSE(FindRoute("POST", path).route->generates) << path;
}

TEST(GatewayFilterTest, KnowsJsonByItsType) {
  for (const char* type : {"application/json", "Application/JSON",
                           "application/json; charset=utf-8", "application/json \t;"})
    EXPECT_TRUE(IsJsonType(type)) << type;
  for (const char* type : {"", " ", ";", "text/plain", "application/jsonx", "application/jso"})
    EXPECT_FALSE(IsJsonType(type)) << type;
}

}  // namespace
}  // namespace talaria::cvm
