// The whole attested chain as a user has it, processes of their own on this machine: talaria-cloud,
// talaria-cvm with its llama-server, talaria proxy; the simulated TEE; keys, token and policy made
// anew.
#ifndef TALARIA_BENCH_ATTESTED_CHAIN_H_
#define TALARIA_BENCH_ATTESTED_CHAIN_H_

#include <memory>
#include <string>

#include "bench/process.h"
#include "bench/setting.h"
#include "talaria/base/result.h"

namespace talaria::bench {

class AttestedChain {
 public:
  // Returns when the CVM takes requests and the proxy listens. kUnavailable: a program failed; its
  // log is in the work folder.
  static Result<std::unique_ptr<AttestedChain>> Start(const Setting& setting);

  const std::string& front() const { return front_; }    // the CVM's, TLS on loopback TCP
  const std::string& proxy() const { return proxy_; }    // plain HTTP on loopback TCP
  const std::string& engine() const { return engine_; }  // llama-server's own Unix socket
  const std::string& policy() const { return policy_; }  // a file that accepts this CVM
  const std::string& token() const { return token_; }    // without limits that matter here

 private:
  AttestedChain() = default;
  Status StartCvmAndProxy(const Setting& setting);
  std::string front_, proxy_, engine_, policy_, token_;
  std::unique_ptr<Background> cloud_process_, cvm_process_, proxy_process_;
};

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_ATTESTED_CHAIN_H_
