// Writes a GGUF model in another quantisation, with llama.cpp's own quantiser: llama.cpp's test
// models are F32. usage: talaria-requantise IN.gguf OUT.gguf TYPE, in which TYPE is one of the
// names below.
#include <ggml-backend.h>
#include <llama.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

int main(int argc, char** argv) {
  static const std::map<std::string, llama_ftype> kTypes = {
      {"f16", LLAMA_FTYPE_MOSTLY_F16},       {"bf16", LLAMA_FTYPE_MOSTLY_BF16},
      {"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},     {"q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
      {"q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},     {"q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},
      {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},     {"q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},
      {"q3_K", LLAMA_FTYPE_MOSTLY_Q3_K_M},   {"q4_K", LLAMA_FTYPE_MOSTLY_Q4_K_M},
      {"q5_K", LLAMA_FTYPE_MOSTLY_Q5_K_M},   {"q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
      {"iq4_nl", LLAMA_FTYPE_MOSTLY_IQ4_NL}, {"iq4_xs", LLAMA_FTYPE_MOSTLY_IQ4_XS},
  };
  const auto type = argc == 4 ? kTypes.find(argv[3]) : kTypes.end();
  if (type == kTypes.end()) {
    std::fprintf(stderr, "usage: talaria-requantise IN.gguf OUT.gguf TYPE; types:");
    for (const auto& [name, unused] : kTypes) std::fprintf(stderr, " %s", name.c_str());
    std::fprintf(stderr, "\n");
    return 2;
  }
  const char* dir = std::getenv("TALARIA_LLAMA_DIR");
  const std::string cpu =
      std::string(dir != nullptr ? dir : TALARIA_LLAMA_DIR) + "/bin/libggml-cpu.so";
  if (ggml_backend_load(cpu.c_str()) == nullptr) {
    std::fprintf(stderr, "cannot load %s\n", cpu.c_str());
    return 2;
  }
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.nthread = 1;
  params.ftype = type->second;
  // One type for every matrix, but where a width is no multiple of its blocks: there llama.cpp
  // takes another.
  params.pure = true;
  return llama_model_quantize(argv[1], argv[2], &params) == 0 ? 0 : 1;
}
