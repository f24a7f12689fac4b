// The provider's side as processes and files: keys, a policy and talaria-cloud itself, made anew in
// the work folder with Talaria's own programs, as an operator makes them.
#ifndef TALARIA_BENCH_PROVIDER_H_
#define TALARIA_BENCH_PROVIDER_H_

#include <memory>
#include <string>
#include <vector>

#include "bench/process.h"
#include "bench/setting.h"
#include "talaria/base/result.h"

namespace talaria::bench {

struct Provider {
  std::string key_file;  // private, PEM
  std::string key;       // SHA-256 of its SPKI, which CVMs pin, in hexadecimal digits
  std::string model;     // the store's identity, likewise
};
// kUnavailable: a program failed; its log is in the work folder.
Result<Provider> MakeProvider(const Setting& setting);

// Whom a policy accepts: one program of the simulated TEE, beside the provider's model.
struct Accepted {
  std::string program;                    // a file
  std::string tenant_key, configuration;  // 64 hexadecimal digits each
};
// The policy's file. Errors as above.
Result<std::string> MakePolicy(const Setting& setting, const Provider& provider,
                               const Accepted& accepted);

struct CloudProcess {
  std::unique_ptr<Background> process;
  std::string endpoint;  // as it listens: for TCP the port that it got
};
// Over setting.channel, with attested TLS; `provider` and `policy` are not used when
// setting.plaintext. Returns when it listens. kUnavailable: its log is in the work folder.
Result<CloudProcess> StartCloud(const Setting& setting, const Provider& provider,
                                const std::string& policy);

// The standard output of a program that ends, without the line's end.
Result<std::string> Line(const std::vector<std::string>& arguments, const std::string& log);
Result<std::unique_ptr<Background>> Launch(const std::vector<std::string>& arguments,
                                           const std::string& log);

// Reads what a program says in its log, beginning where the log ends when this is made: logs of
// earlier runs may be in the same file.
class LogReader {
 public:
  explicit LogReader(std::string path);
  // What stands between the two in the log, once it is there. kUnavailable after two minutes or
  // when the process has ended.
  Result<std::string> Await(const std::string& before, const std::string& behind,
                            const Background& process) const;

 private:
  const std::string path_;
  const size_t begin_;
};

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_PROVIDER_H_
