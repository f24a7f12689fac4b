// Joins the parts inside the CVM: channel server <-> session, and the child's life.
#ifndef TALARIA_CVM_ENGINE_HOST_H_
#define TALARIA_CVM_ENGINE_HOST_H_

#include <memory>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/cvm/launcher.h"
#include "talaria/cvm/masked_model.h"
#include "talaria/cvm/session.h"
#include "talaria/engine/channel.h"

namespace talaria::cvm {

struct EngineOptions {
  std::string program;                 // llama-server, or any llama.cpp program in the laboratory
  std::vector<std::string> arguments;  // complete
  std::string plugin;                  // libggml-talaria.so
  std::vector<std::pair<std::string, std::string>> extra_environment;  // laboratory only
  std::vector<std::pair<int, int>>
      extra_descriptors;  // laboratory only, as ChildProgram::descriptors
  bool keep_output = false;
  bool sandbox = true;
  // Where the child may make its socket. When set, the child can open no file but its own program's
  // and the system's.
  std::string socket_folder;
  SandboxPolicy sandbox_policy = SandboxPolicy::kRequire;
};

engine::ChannelModel DescribeModel(const model::Manifest& manifest);

// Runs one child to its end. Threads: one serves the channel. The session is poisoned when the
// child breaks the protocol or reports that something happened that must never happen; a child that
// merely ends leaves it alive.
class EngineHost {
 public:
  static Result<std::unique_ptr<EngineHost>> Start(const MaskedModel& model, Session& session,
                                                   Launcher& launcher, EngineOptions options);
  // Kills the child. A call that is being served ends first: stop the link and the masks before, if
  // they may block.
  virtual ~EngineHost() = default;
  virtual bool all_matrices_landed() const = 0;  // the plug-in reported it
  virtual bool running()
      const = 0;  // until the child has ended or was given up (noticed within 0.1 s)
  virtual Result<int> Wait(int timeout_ms) = 0;  // as Launcher::Wait
  virtual void Kill() = 0;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_ENGINE_HOST_H_
