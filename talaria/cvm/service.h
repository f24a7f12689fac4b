// Joins the parts of the CVM in the one right order, for talaria-cvm and for the laboratory's
// program:
//
//   launcher (forked by the caller, before threads and keys) -> no dumps, no swap -> link to the
//   cloud -> model (every byte checked) -> masks -> session -> the engine's child process -> every
//   matrix landed
//
// What differs between the two programs comes in from outside: where masks come from, what runs as
// the child, how the session multiplies. Nothing here knows a laboratory scheme.
#ifndef TALARIA_CVM_SERVICE_H_
#define TALARIA_CVM_SERVICE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/cpu.h"
#include "talaria/base/result.h"
#include "talaria/cvm/boot_identity.h"
#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/config.h"
#include "talaria/cvm/engine_host.h"
#include "talaria/cvm/launcher.h"
#include "talaria/cvm/mask_source.h"
#include "talaria/cvm/masked_model.h"
#include "talaria/cvm/run_folder.h"
#include "talaria/cvm/session.h"
#include "talaria/cvm/setup.h"

namespace talaria::cvm {

// How strict the machine is taken. Only the simulated TEE turns refusals into loud warnings.
struct Platform {
  bool simulated_tee = false;
  Isa isa = Isa::kPortable;
  LockPolicy lock() const {
    return simulated_tee ? LockPolicy::kWarnIfImpossible : LockPolicy::kRequire;
  }
  SandboxPolicy sandbox() const {
    return simulated_tee ? SandboxPolicy::kWarnIfImpossible : SandboxPolicy::kRequire;
  }
};

// Core dumps off, not dumpable, not traceable, no swap. After this, /proc/self is out of reach for
// the process itself.
Status HardenProcess(const Platform& platform);

struct MaskSupply {
  std::unique_ptr<MaskSource> source;
  std::function<Status()> fill = {};  // blocks until rows are there; may be empty
  std::function<void()> stop = {};    // any thread: ends `fill` and every draw; may be empty
};
using MaskFactory =
    std::function<Result<MaskSupply>(const MaskedModel&, const Config&, const Platform&)>;
// The product's: MaskPool with config.pool_bytes, or MemoryPlan::Pools().
Result<MaskSupply> MakeMaskPool(const MaskedModel& model, const Config& config,
                                const Platform& platform);

using SessionFactory = std::function<Result<std::unique_ptr<Session>>(
    MaskedModel&, CloudLink&, MaskSource&, const SessionOptions&)>;

struct ServiceOptions {
  Config config;
  Platform platform;
  // Who we are towards the cloud; null exactly when config.cloud_plaintext.
  std::shared_ptr<BootIdentity> identity = {};
  MaskFactory masks = MakeMaskPool;
  SessionFactory session = {};  // empty: a Session
  // The child, once the model is known; the service fills in the plug-in's path and the sandbox
  // policy.
  std::function<EngineOptions(const model::Manifest&, const RunFolder&)> engine;
  std::function<void(std::string_view step, uint64_t done, uint64_t total)> on_progress = {};
};

// SetUp(), StartEngine(), WaitForEnd() are called in this order from one thread; the rest from any.
class Service {
 public:
  // Makes the run folder and the link; does not connect. kInvalidArgument, kNotFound (no plug-in or
  // no engine), kIo.
  static Result<std::unique_ptr<Service>> Create(ServiceOptions options,
                                                 std::unique_ptr<Launcher> launcher);
  ~Service();  // ends the child, wipes, removes the run folder

  // The model, checked, and full pools. kSessionEnded, kUnavailable, kResourceExhausted (with the
  // numbers), kCancelled.
  Status SetUp();
  Status StartEngine();
  // Whether the child lives, the session lives and nobody asked to stop; what ended it otherwise:
  // kSessionEnded, kCancelled, kUnavailable (the child's exit code is in the message).
  Status Alive();
  // Blocks until that ends, or, for programs that end by themselves, until the child has exited;
  // its code is in *exit_code.
  Status WaitForEnd(int* exit_code);
  bool all_matrices_landed() const;
  // Blocks until the pools are full again (benchmarks).
  Status FillMasks() { return masks_.fill ? masks_.fill() : OkStatus(); }

  // Ends whatever is running or blocked: SetUp() and the others return kCancelled.
  void Stop();

  const model::Manifest& manifest() const;
  const RunFolder& run_folder() const { return run_folder_; }
  const Session& session() const { return *session_; }
  LinkStats link_stats() const { return link_->stats(); }
  MaskStats mask_stats() const { return masks_.source->stats(); }

 private:
  Service(ServiceOptions options, std::unique_ptr<Launcher> launcher, RunFolder run_folder);
  // What a failure means: a request to stop and the end of the session come first, whatever a part
  // said when it was ended.
  Status Verdict(Status status) const;

  ServiceOptions options_;
  std::unique_ptr<Launcher> launcher_;
  RunFolder run_folder_;
  std::atomic<bool> stopping_{false};
  // Destroyed from the last to the first: the child before the session, the session before what it
  // refers to.
  std::unique_ptr<CloudLink> link_;
  std::unique_ptr<MaskedModel> model_;
  MaskSupply masks_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<EngineHost> host_;
  mutable std::mutex stop_mutex_;  // guards which of the parts above exist, for Stop()
};

// Refers to `identity`.
std::shared_ptr<const CloudSecurity> MakeCloudSecurity(const Config& config,
                                                       BootIdentity& identity);

// The fixed argument list of llama-server (doc/http.md says what each is for). Nothing of a
// configuration or a manifest gets in but numbers, the checked alias and the socket's path.
std::vector<std::string> LlamaServerArguments(const Config& config, const model::Manifest& manifest,
                                              const std::string& socket);

// Where the programs of the pinned llama.cpp build and the plug-in are, when the configuration does
// not say. kNotFound names what was looked for.
Result<std::string> FindEngineProgram(const std::string& configured, const std::string& name);
Result<std::string> FindPlugin(const std::string& configured);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_SERVICE_H_
