// talaria-cvm's configuration: a TOML file only, since its digest is attested. Unknown keys, wrong
// types and missing mandatory keys are errors that name the key and the line.
#ifndef TALARIA_CVM_CONFIG_H_
#define TALARIA_CVM_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"

namespace talaria::cvm {

struct Config {
  // [cloud]
  std::string cloud_endpoint;    // mandatory
  std::string provider_key;      // SHA-256 of its SPKI, 64 hex digits; mandatory unless plaintext
  bool cloud_plaintext = false;  // no TLS, no evidence: only with the simulated TEE
  int idle_timeout_ms = 3000;
  int max_retries = 2;
  // [model]
  std::string identity;   // 64 hex digits; mandatory ("any" only if both are plaintext)
  int check_vectors = 2;  // 1 or 2
  // [server]
  std::string listen;             // mandatory: unix:PATH or HOST:PORT
  bool server_plaintext = false;  // no TLS, no evidence, no users: only with the simulated TEE
  uint32_t context = 4096;        // tokens
  int slots = 1;                  // requests at a time
  int threads = 1;                // of llama.cpp
  uint32_t max_body_bytes = 8u << 20;
  // The only user who may ask, whose prompts' prefixes are then reused. Empty: every user of the
  // tenant, and nothing of a request outlives it.
  std::string prompt_cache_user;
  // [tenant]
  std::string tenant_key;  // raw Ed25519 public key, 64 hex digits; mandatory unless both plaintext
  // [tee]
  std::string report_folder = "/sys/kernel/config/tsm/report";  // Linux's configfs-tsm
  // [masks]
  uint64_t pool_bytes = 0;  // 0: MemoryPlan::Pools()
  int fill_threads = 1;
  // [engine]
  std::string llama_server;  // default: the pinned build's
  std::string plugin;        // default: beside this program
  std::string run_dir;       // sockets; created 0700; default: a fresh folder under $TMPDIR or /run

  Digest digest{};  // SHA-256 of the file's bytes
};

// Sizes are integers (bytes) or strings such as "900 MiB". With the simulated TEE endpoints must be
// local (a Unix socket or a loopback address). `name` stands in error
// messages: "name:line: table.key says what is wrong". kInvalidArgument.
Result<Config> ParseConfig(std::string_view text, const std::string& name, bool simulated_tee);
// The same for a file. kNotFound, kIo, kInvalidArgument.
Result<Config> LoadConfig(const std::string& path, bool simulated_tee);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_CONFIG_H_
