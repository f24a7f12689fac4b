#include "talaria/cvm/sandbox.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>

namespace talaria::cvm {
namespace {

Status Refused(const char* what, int error) {
  return Status(Code::kUnsupported, std::string(what) + " was refused: " + std::strerror(error));
}

struct FilterDeleter {
  void operator()(void* filter) const { seccomp_release(filter); }
};

// Refused with EPERM whatever the arguments. Names that this libseccomp does not know are left out;
// the second filter's and the capabilities' absence cover the rest.
const char* const kDenied[] = {
    // other processes
    "fork",
    "vfork",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "process_mrelease",
    "kcmp",
    "pidfd_open",
    "pidfd_getfd",
    "pidfd_send_signal",
    "tkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    // ways out: the child only ever listens
    "connect",
    // large or rarely tested interfaces of the kernel
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "bpf",
    "userfaultfd",
    "perf_event_open",
    "keyctl",
    "add_key",
    "request_key",
    "fanotify_init",
    "lookup_dcookie",
    "modify_ldt",
    "iopl",
    "ioperm",
    "personality",
    "migrate_pages",
    "move_pages",
    // System V and POSIX objects that outlive a process
    "shmget",
    "shmat",
    "shmctl",
    "semget",
    "semop",
    "semctl",
    "msgget",
    "msgsnd",
    "msgrcv",
    "msgctl",
    "mq_open",
    "mq_unlink",
    // the machine
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "unshare",
    "setns",
    "swapon",
    "swapoff",
    "reboot",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "open_by_handle_at",
    "name_to_handle_at",
    "quotactl",
    "quotactl_fd",
    "acct",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "sethostname",
    "setdomainname",
    "syslog",
    "vhangup",
    "nfsservctl",
};

}  // namespace

Status EnterEmptyNetwork() {
  if (unshare(CLONE_NEWNET) == 0) return OkStatus();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) return OkStatus();
  return Refused("a network namespace", errno);
}

Status DropCapabilities() {
  for (int capability = 0; capability < 64; ++capability) {
    const int known = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (known < 0) break;  // past the last one
    // Without CAP_SETPCAP there is nothing to drop either: only a privileged program could gain
    // capabilities by exec, and no_new_privs forbids that.
    if (known == 1 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EPERM)
      return Refused("dropping capabilities", errno);
  }
  return OkStatus();
}

Status InstallFilter() {
  const std::unique_ptr<void, FilterDeleter> filter(seccomp_init(SCMP_ACT_ALLOW));
  if (!filter) return Refused("a seccomp filter", ENOMEM);
  int error = 0;
  const auto check = [&error](int result) {
    if (result != 0 && error == 0) error = -result;
  };
  const auto add = [&](uint32_t action, const char* name, const scmp_arg_cmp* arguments,
                       unsigned count) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR || number < 0)
      return;  // not of this library or of this architecture
    check(seccomp_rule_add_array(filter.get(), action, number, count, arguments));
  };
  const uint32_t refuse = SCMP_ACT_ERRNO(EPERM);
  for (const char* name : kDenied) add(refuse, name, nullptr, 0);
  add(SCMP_ACT_ERRNO(ENOSYS), "clone3", nullptr,
      0);  // glibc then uses clone, whose flags a filter can read
  const scmp_arg_cmp not_unix = SCMP_A0_32(SCMP_CMP_NE, AF_UNIX);
  add(SCMP_ACT_ERRNO(EAFNOSUPPORT), "socket", &not_unix, 1);
  add(SCMP_ACT_ERRNO(EAFNOSUPPORT), "socketpair", &not_unix, 1);
  const scmp_arg_cmp no_thread = SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
  add(refuse, "clone", &no_thread, 1);
  const scmp_arg_cmp not_self = SCMP_A0_32(SCMP_CMP_NE, static_cast<uint32_t>(getpid()));
  add(refuse, "kill", &not_self, 1);
  add(refuse, "tgkill", &not_self, 1);
  const scmp_arg_cmp inject = SCMP_A1_32(SCMP_CMP_EQ, TIOCSTI);
  add(refuse, "ioctl", &inject, 1);
  if (error == 0) check(seccomp_load(filter.get()));
  if (error != 0) return Refused("a seccomp filter", error);
  return OkStatus();
}

bool SeccompAvailable() {
  const uint32_t action = SECCOMP_RET_ERRNO;
  return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

}  // namespace talaria::cvm
