// What llama-server is deprived of before it starts: it parses what the (untrusted) provider wrote,
// so a bug in a parser must not reach the network, other processes or the kernel's rarer corners.
// Called by the launcher's child between fork and exec, in a process of one thread. A second
// filter, which also takes exec away, is installed by the plug-in (engine/hardening.h).
#ifndef TALARIA_CVM_SANDBOX_H_
#define TALARIA_CVM_SANDBOX_H_

#include <string>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::cvm {

// A network namespace with nothing in it, in a user namespace of its own when the caller is not
// root. kUnsupported.
Status EnterEmptyNetwork();

// Landlock: `readable` files and folders may be read and executed, sockets may be made and removed
// in `socket_folders`, and nothing else can be opened, made or removed; no abstract sockets and no
// signals to processes outside, where the kernel knows them. Paths that do not exist are left out.
// kUnsupported.
Status RestrictFiles(const std::vector<std::string>& readable,
                     const std::vector<std::string>& socket_folders);

// Empties the ambient, permitted and bounding capability sets, so that even root keeps no
// capability through the exec that follows. kUnsupported.
Status DropCapabilities();

// The seccomp filter: stream sockets of AF_UNIX only and no connect (it may listen), threads but no
// processes, signals only to itself, nobody else's limits, priority or processors, no ptrace,
// process_vm_*, io_uring, bpf, userfaultfd, perf, keys, mounts, namespaces, modules, clocks; modes,
// owners, times, flags and extended attributes of files stay as they are. Everything else passes:
// it is a deny list over what llama.cpp never needs. Sets no_new_privs. kUnsupported.
Status InstallFilter();

// Whether this kernel takes seccomp filters at all.
bool SeccompAvailable();

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_SANDBOX_H_
