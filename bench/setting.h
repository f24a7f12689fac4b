// What is measured, and over which channel.
#ifndef TALARIA_BENCH_SETTING_H_
#define TALARIA_BENCH_SETTING_H_

#include <string>

namespace talaria::bench {

struct Setting {
  std::string model;     // GGUF
  std::string bin;       // Talaria's programs
  std::string llama;     // llama.cpp as scripts/setup built it
  std::string store;     // provisioned when absent
  std::string work;      // logs and sockets
  int pool_batches = 2;  // of 256 rows, per group
  int cloud_threads = 2;
  std::string scheme = "lattice";  // of talaria-cvm-lab
  std::string m = "1/2";           // of the scheme `published`
  // Between CVM and cloud: a Unix socket, or TCP on loopback. Inside of both TLS 1.3 with the
  // evidence of the simulated TEE, as talaria-cvm has it.
  enum class Channel { kUnix, kTcp } channel = Channel::kUnix;
  bool plaintext = false;  // neither TLS nor evidence: for analysis only
};

inline const char* ChannelName(const Setting& setting) {
  return setting.channel == Setting::Channel::kUnix ? "unix" : "tcp";
}
// A line for people that stands beside every result.
inline std::string DescribeChannel(const Setting& setting) {
  const std::string socket = setting.channel == Setting::Channel::kUnix
                                 ? "channel: Unix socket, "
                                 : "channel: TCP on loopback, ";
  return socket + (setting.plaintext ? "PLAINTEXT: for analysis, no product has it"
                                     : "TLS 1.3, attested (simulated TEE), as talaria-cvm has it");
}

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_SETTING_H_
