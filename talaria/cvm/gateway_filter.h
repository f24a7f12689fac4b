// What of a request may reach llama-server: a fixed list of routes and, per route, a fixed list of
// top-level fields. Everything that is not listed stays out. Pure functions; no request text ever
// appears in an error message.
//
// Left out on purpose, because they steer the server instead of the answer: slots (`id_slot`),
// prefix reuse (`n_cache_reuse`, `cache_prompt` unless the configuration allows it), adapters
// (`lora`), speculation (`speculative.*`), what the server's own chat layer passes to itself
// (`chat_format`, `chat_parser`, `grammar_triggers`, `preserved_tokens`, `message_delimiters`,
// ...), and `verbose`. A field that is not listed is dropped without an error, because OpenAI
// clients send harmless extras (`user`, `store`, `metadata`); what a client may rely on is listed
// in doc/http.md.
#ifndef TALARIA_CVM_GATEWAY_FILTER_H_
#define TALARIA_CVM_GATEWAY_FILTER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "talaria/base/result.h"

namespace talaria::cvm {

// Which list of fields a route has.
enum class BodyKind {
  kNone,
  kChat,
  kCompletion,
  kResponses,
  kMessages,
  kEmbeddings,
  kRerank,
  kTokenize,
  kDetokenize
};

struct Route {
  std::string_view method;  // "GET" or "POST"
  std::string_view path;    // exact; the same towards llama-server
  BodyKind body;
  bool generates = false;  // the answer has tokens of the model
};

// What became of a method and a request target.
struct RouteMatch {
  const Route* route = nullptr;  // null: no such route, or not with this method
  bool path_exists = false;      // the path exists with another method
};

// The query of `target` is ignored (clients append ?beta=true and the like; llama-server's listed
// routes read none).
RouteMatch FindRoute(std::string_view method, std::string_view target);

// Whether a Content-Type is JSON's, with parameters or without.
bool IsJsonType(std::string_view content_type);

struct FilterOptions {
  bool prompt_cache = false;  // false: `cache_prompt` is false whatever the client says
};

// Bounds of a body, checked before anything is built from it.
inline constexpr size_t kMaxJsonDepth = 64;
inline constexpr size_t kMaxJsonValues = size_t{1} << 19;  // a prompt may be an array of tokens
// Ordered objects, ours and llama.cpp's, are searched linearly for every key that is added.
inline constexpr size_t kMaxJsonObjectKeys = 1024;
inline constexpr size_t kMaxJsonKeySearches = size_t{1} << 22;  // keys passed, in all objects
// llama.cpp follows groups of a grammar and references of a schema by recursion: a fourth of what
// fits the stack that the launcher gives it (launcher_process.cc), with the depth above between two
// references. Beyond, one request would end the engine for everybody.
inline constexpr size_t kMaxGrammarGroups = size_t{1} << 16;
inline constexpr size_t kMaxSchemaReferences = 1024;
// Each is looked for in the whole vocabulary, a tenth of a second, while no slot computes.
inline constexpr size_t kMaxSequenceBreakers = 16;

// The body that llama-server is sent: the same JSON object with the listed fields only, in their
// order, re-encoded. kInvalidArgument: not a JSON object in UTF-8, or out of bounds; the message is
// fixed text. `answers`, where not null: how many the request asks for, >= 1.
Result<std::string> FilterBody(BodyKind kind, std::string_view body, const FilterOptions& options,
                               uint64_t* answers = nullptr);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_GATEWAY_FILTER_H_
