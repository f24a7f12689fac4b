#include "talaria/cvm/gateway_filter.h"

#include <algorithm>
#include <array>
#include <exception>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace talaria::cvm {
namespace {

// The order of keys matters to JSON schemas (it becomes the order of the answer's fields), so
// objects keep theirs.
using Json = nlohmann::ordered_json;

constexpr Route kRoutes[] = {
    {"GET", "/v1/models", BodyKind::kNone},
    {"POST", "/v1/chat/completions", BodyKind::kChat, true},
    {"POST", "/v1/chat/completions/input_tokens", BodyKind::kChat},
    {"POST", "/v1/completions", BodyKind::kCompletion, true},
    {"POST", "/v1/responses", BodyKind::kResponses, true},
    {"POST", "/v1/responses/input_tokens", BodyKind::kResponses},
    {"POST", "/v1/messages", BodyKind::kMessages, true},
    {"POST", "/v1/messages/count_tokens", BodyKind::kMessages},
    {"POST", "/v1/embeddings", BodyKind::kEmbeddings},
    {"POST", "/v1/rerank", BodyKind::kRerank},
    {"POST", "/tokenize", BodyKind::kTokenize},
    {"POST", "/detokenize", BodyKind::kDetokenize},
    {"POST", "/apply-template", BodyKind::kChat},
};

// How the next token is chosen, how much is generated and what is reported about it: llama.cpp's
// names and OpenAI's.
constexpr std::string_view kGenerationFields[] = {
    "model", "stream", "stream_options", "sse_ping_interval", "return_progress",
    "timings_per_token", "return_tokens", "cache_prompt",
    // length
    "max_tokens", "max_completion_tokens", "n_predict", "n", "n_cmpl", "n_indent", "n_keep",
    "n_discard", "t_max_predict_ms", "stop", "ignore_eos",
    // sampling
    "seed", "temperature", "top_k", "top_p", "min_p", "min_keep", "top_n_sigma", "typical_p",
    "xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent", "repeat_last_n",
    "repeat_penalty", "frequency_penalty", "presence_penalty", "dry_multiplier", "dry_base",
    "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "mirostat", "mirostat_tau",
    "mirostat_eta", "adaptive_target", "adaptive_decay", "samplers", "logit_bias", "logprobs",
    "top_logprobs", "n_probs", "post_sampling_probs",
    // constraints
    "grammar", "json_schema", "response_format"};

constexpr std::string_view kChatFields[] = {"messages",
                                            "tools",
                                            "tool_choice",
                                            "parallel_tool_calls",
                                            "chat_template_kwargs",
                                            "add_generation_prompt",
                                            "continue_final_message",
                                            "reasoning_format",
                                            "reasoning_effort",
                                            "reasoning_budget_tokens",
                                            "reasoning_budget_message",
                                            "thinking_budget_tokens"};

// echo, suffix and best_of pass so that llama-server can say that it does not have them.
constexpr std::string_view kCompletionFields[] = {"prompt", "echo", "suffix", "best_of"};

// previous_response_id passes for the same reason: an answer without the context that was meant
// would be wrong.
constexpr std::string_view kResponsesFields[] = {"input",
                                                 "instructions",
                                                 "max_output_tokens",
                                                 "reasoning",
                                                 "text",
                                                 "tools",
                                                 "tool_choice",
                                                 "parallel_tool_calls",
                                                 "previous_response_id",
                                                 "chat_template_kwargs"};

constexpr std::string_view kMessagesFields[] = {"model",
                                                "messages",
                                                "system",
                                                "max_tokens",
                                                "stop_sequences",
                                                "stream",
                                                "temperature",
                                                "top_p",
                                                "top_k",
                                                "tools",
                                                "tool_choice",
                                                "thinking",
                                                "chat_template_kwargs"};

constexpr std::string_view kEmbeddingsFields[] = {"model", "input", "encoding_format", "dimensions",
                                                  "embd_normalize"};
constexpr std::string_view kRerankFields[] = {"model", "query", "documents",
                                              "texts", "top_n", "return_text"};
constexpr std::string_view kTokenizeFields[] = {"content", "add_special", "parse_special",
                                                "with_pieces"};
constexpr std::string_view kDetokenizeFields[] = {"tokens"};

using FieldList = std::span<const std::string_view>;

bool Contains(FieldList list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

// The lists of a kind: generation fields and its own, or its own alone.
std::array<FieldList, 2> FieldsOf(BodyKind kind) {
  switch (kind) {
    case BodyKind::kNone:
      return {};
    case BodyKind::kChat:
      return {kGenerationFields, kChatFields};
    case BodyKind::kCompletion:
      return {kGenerationFields, kCompletionFields};
    case BodyKind::kResponses:
      return {kGenerationFields, kResponsesFields};
    case BodyKind::kMessages:
      return {kMessagesFields};
    case BodyKind::kEmbeddings:
      return {kEmbeddingsFields};
    case BodyKind::kRerank:
      return {kRerankFields};
    case BodyKind::kTokenize:
      return {kTokenizeFields};
    case BodyKind::kDetokenize:
      return {kDetokenizeFields};
  }
  return {};
}

Status Refused(const char* why) { return Status(Code::kInvalidArgument, why); }

// Counts what a parser would build, in one pass and without memory: brackets, colons and commas
// outside strings. Whether the text is JSON at all is the parser's business.
Status CheckBounds(std::string_view text) {
  std::array<size_t, kMaxJsonDepth + 1> keys{};
  size_t depth = 0, values = 1, searches = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        break;
      case '{':
      case '[':
        if (++depth > kMaxJsonDepth) return Refused("The JSON body is nested too deeply.");
        keys[depth] = 0;
        ++values;
        break;
      case '}':
      case ']':
        if (depth == 0) return Refused("The body is not valid JSON.");
        --depth;
        break;
      case ':':
        if (++keys[depth] > kMaxJsonObjectKeys)
          return Refused("An object of the JSON body has too many keys.");
        searches += keys[depth];
        if (searches > kMaxJsonKeySearches)
          return Refused("The JSON body has too many keys in large objects.");
        break;
      case ',':
        ++values;
        break;
      default:
        break;
    }
    if (values > kMaxJsonValues) return Refused("The JSON body has too many values.");
  }
  return OkStatus();
}

size_t CountReferences(const Json& request) {
  size_t count = 0;
  for (std::vector<const Json*> left = {&request}; !left.empty();) {
    const Json& value = *left.back();
    left.pop_back();
    if (!value.is_structured()) continue;
    if (value.is_object() && value.contains("$ref")) ++count;
    for (const Json& member : value) left.push_back(&member);
  }
  return count;
}

// Names, or a letter each.
bool NamesInfill(const Json& samplers) {
  if (samplers.is_string())
    return samplers.get_ref<const std::string&>().find('i') != std::string::npos;
  return samplers.is_array() &&
         std::ranges::any_of(samplers, [](const Json& name) { return name == "infill"; });
}

// What one request would take the engine away from everybody with.
Status CheckCost(const Json& request) {
  if (const auto grammar = request.find("grammar");
      grammar != request.end() && grammar->is_string() &&
      static_cast<size_t>(std::ranges::count(grammar->get_ref<const std::string&>(), '(')) >
          kMaxGrammarGroups)
    return Refused("The grammar has too many groups.");
  if (CountReferences(request) > kMaxSchemaReferences)
    return Refused("The JSON body has too many references.");
  if (const auto breakers = request.find("dry_sequence_breakers");
      breakers != request.end() && breakers->size() > kMaxSequenceBreakers)
    return Refused("There are too many sequence breakers.");
  // Compares all pairs of the vocabulary for every token, minutes each, and is of a route that
  // there is not.
  if (const auto samplers = request.find("samplers");
      samplers != request.end() && NamesInfill(*samplers))
    return Refused("There is no sampler for infilling.");
  return OkStatus();
}

// Choices times prompts. llama-server refuses numbers that it does not like, so anything else
// counts as one.
uint64_t CountAnswers(const Json& request) {
  constexpr uint64_t kMost = 1 << 20;
  uint64_t choices = 1, prompts = 1;
  for (const char* name : {"n", "n_cmpl"}) {
    const auto found = request.find(name);
    if (found != request.end() && found->is_number_unsigned())
      choices = std::max(choices, std::min(found->get<uint64_t>(), kMost));
  }
  const auto prompt = request.find("prompt");
  const auto is_text = [](const Json& value) { return !value.is_number(); };
  if (prompt != request.end() && prompt->is_array() && std::ranges::any_of(*prompt, is_text))
    prompts = prompt->size();
  return choices * prompts;
}

}  // namespace

RouteMatch FindRoute(std::string_view method, std::string_view target) {
  const std::string_view path = target.substr(0, target.find('?'));
  RouteMatch match;
  for (const Route& route : kRoutes) {
    if (route.path != path) continue;
    match.path_exists = true;
    if (route.method == method) match.route = &route;
  }
  return match;
}

bool IsJsonType(std::string_view content_type) {
  std::string_view type = content_type.substr(0, content_type.find(';'));
  type = type.substr(0, type.find_last_not_of(" \t") + 1);
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(type, std::string_view("application/json"), {}, lower);
}

Result<std::string> FilterBody(BodyKind kind, std::string_view body, const FilterOptions& options,
                               uint64_t* answers) {
  TALARIA_RETURN_IF_ERROR(CheckBounds(body));
  try {
    Json parsed = Json::parse(body, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_discarded()) return Refused("The body is not valid JSON.");
    if (!parsed.is_object()) return Refused("The body must be a JSON object.");
    const std::array<FieldList, 2> lists = FieldsOf(kind);
    Json kept = Json::object();
    for (auto& [name, value] : parsed.items()) {
      if (Contains(lists[0], name) || Contains(lists[1], name)) kept[name] = std::move(value);
    }
    TALARIA_RETURN_IF_ERROR(CheckCost(kept));
    // Set even when the client does not mention it: llama-server's own default is to reuse.
    if (!options.prompt_cache && Contains(lists[0], "cache_prompt")) kept["cache_prompt"] = false;
    if (answers != nullptr) *answers = CountAnswers(kept);
    return kept.dump();
  } catch (const std::exception&) {  // no memory; anything else was checked above
    return Refused("The body could not be read.");
  }
}

}  // namespace talaria::cvm
