// Starts llama-server (or, in the laboratory, another llama.cpp program). The launcher is a
// single-threaded process that is forked before the first key is drawn, so that the process with
// the keys never forks.
#ifndef TALARIA_CVM_LAUNCHER_H_
#define TALARIA_CVM_LAUNCHER_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "talaria/base/file.h"
#include "talaria/base/result.h"

namespace talaria::cvm {

enum class SandboxPolicy {
  kRequire,           // no network namespace or no seccomp filter: refuse to start
  kWarnIfImpossible,  // only together with the simulated TEE: a loud warning instead
};

struct ChildProgram {
  std::string path;
  std::vector<std::string> arguments;                            // without argv[0]
  std::vector<std::pair<std::string, std::string>> environment;  // exactly this
  std::vector<std::pair<int, int>>
      descriptors;  // (ours, the child's number); everything else is closed
  std::string working_directory;
  bool keep_output =
      false;  // laboratory: standard streams are kept; otherwise they go to /dev/null
  // With `sandbox`, and unless both are empty: the only files and folders (with what is below them)
  // that may be read or executed, and the only folders where sockets may be made. Nothing else on
  // any file system can be opened, made or removed.
  std::vector<std::string> readable, socket_folders;
  bool sandbox = true;  // seccomp (AF_UNIX only, no exec after start, no ptrace) and an empty
                        // network namespace
  SandboxPolicy sandbox_policy = SandboxPolicy::kRequire;
};

class Launcher {
 public:
  // Forks. Call before threads and keys exist.
  static Result<std::unique_ptr<Launcher>> Create();
  virtual ~Launcher() = default;  // ends the child and the launcher process
  // kIo, kUnsupported (the sandbox was refused). One child at a time.
  virtual Result<pid_t> Start(const ChildProgram& program) = 0;
  // Blocks until the child ends or `timeout_ms` passes (0 = poll, -1 = forever). Exit code, or 128
  // + signal. kUnavailable while it runs, kIo when the launcher itself was lost.
  virtual Result<int> Wait(int timeout_ms) = 0;
  virtual void Kill() = 0;  // SIGKILL, any thread
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_LAUNCHER_H_
