// What the plug-in gives up for its whole process as soon as it is loaded, before llama.cpp parses
// anything that the provider wrote. The launcher's filter (cvm/sandbox.h) has to allow the one exec
// that starts the program; this one takes it away.
#ifndef TALARIA_ENGINE_HARDENING_H_
#define TALARIA_ENGINE_HARDENING_H_

#include "talaria/base/result.h"

namespace talaria::engine {

// For every thread of this process, for good: no exec, no new process, no ptrace, no socket but
// AF_UNIX, and not dumpable. kUnsupported when the kernel refuses.
Status HardenProcess();

}  // namespace talaria::engine

#endif  // TALARIA_ENGINE_HARDENING_H_
