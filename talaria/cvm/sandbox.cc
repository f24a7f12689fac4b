#include "talaria/cvm/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>

#include "talaria/base/file.h"

namespace talaria::cvm {
namespace {

Status Refused(const char* what, int error) {
  return Status(Code::kUnsupported, std::string(what) + " was refused: " + std::strerror(error));
}

constexpr uint32_t kSetOwnerEx = 15;  // F_SETOWN_EX, whose name needs GNU extensions

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
    "setpriority",
    "ioprio_set",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    // ways out: the child only ever listens
    "connect",
    // what a file system keeps besides a file's bytes, which Landlock does not guard: it would
    // outlive the process, on the host's disk
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "removexattrat",
    "file_setattr",
    "truncate",  // Landlock's from Linux 6.2 on
    // large or rarely tested interfaces of the kernel
    "io_setup",
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
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
    return Refused("dropping ambient capabilities", errno);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  if (syscall(SYS_capset, &header, none) != 0) return Refused("dropping capabilities", errno);
  return OkStatus();
}

Status RestrictFiles(const std::vector<std::string>& readable,
                     const std::vector<std::string>& socket_folders) {
  // By number: Debian 12's headers are older than the kernels that this runs on. Kernel
  // documentation, "Landlock: unprivileged access control".
  constexpr uint64_t kExecute = 1 << 0, kWriteFile = 1 << 1, kReadFile = 1 << 2,
                     kReadFolder = 1 << 3, kRemoveFile = 1 << 5, kMakeSocket = 1 << 9;
  constexpr uint64_t kFirstVersion = (1 << 13) - 1, kRefer = 1 << 13, kTruncate = 1 << 14,
                     kDeviceIoctl = 1 << 15;
  struct Attributes {
    uint64_t files = 0, network = 0, scoped = 0;
  } attributes;
  const long version =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return Refused("Landlock", errno);
  attributes.files = kFirstVersion | (version >= 2 ? kRefer : 0) | (version >= 3 ? kTruncate : 0) |
                     (version >= 5 ? kDeviceIoctl : 0);
  attributes.network = version >= 4 ? 3 : 0;  // TCP: bind, connect
  attributes.scoped = version >= 6 ? 3 : 0;   // abstract sockets, signals
  const size_t size = version >= 6   ? sizeof attributes
                      : version >= 4 ? 2 * sizeof(uint64_t)
                                     : sizeof(uint64_t);
  const Fd rules(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, size, 0)));
  if (!rules.valid()) return Refused("Landlock", errno);
  const auto allow = [&](const std::string& path, uint64_t rights) -> Status {
    const Fd fd(open(path.c_str(), O_PATH | O_CLOEXEC));
    if (!fd.valid()) return OkStatus();  // not on this machine
    struct stat info {};
    if (fstat(fd.get(), &info) != 0) return Refused("Landlock", errno);
    if (!S_ISDIR(info.st_mode)) rights &= kExecute | kWriteFile | kReadFile;
    landlock_path_beneath_attr rule{};
    rule.allowed_access = rights;
    rule.parent_fd = fd.get();
    if (syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
      return Refused("Landlock", errno);
    return OkStatus();
  };
  for (const std::string& path : readable)
    TALARIA_RETURN_IF_ERROR(allow(path, kExecute | kReadFile | kReadFolder));
  for (const std::string& path : socket_folders)
    TALARIA_RETURN_IF_ERROR(allow(path, kReadFolder | kRemoveFile | kMakeSocket));
  TALARIA_RETURN_IF_ERROR(allow("/dev/null", kReadFile | kWriteFile));
  if (syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) return Refused("Landlock", errno);
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
  // A datagram needs no connect to reach the system log's socket, so streams only.
  for (uint32_t type = 0; type < 16; ++type) {
    if (type == SOCK_STREAM) continue;
    const scmp_arg_cmp other = SCMP_A1_32(SCMP_CMP_MASKED_EQ, 15, type);
    add(SCMP_ACT_ERRNO(EAFNOSUPPORT), "socket", &other, 1);
    add(SCMP_ACT_ERRNO(EAFNOSUPPORT), "socketpair", &other, 1);
  }
  // Limits and signals of other processes, and where they run: beside the child, say, for it to
  // watch the cache that they share.
  const scmp_arg_cmp another = SCMP_A0_32(SCMP_CMP_NE, 0);
  for (const char* name :
       {"prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"})
    add(refuse, name, &another, 1);
  for (const uint32_t command : {uint32_t{F_SETOWN}, uint32_t{10} /* F_SETSIG */, kSetOwnerEx}) {
    const scmp_arg_cmp owner = SCMP_A1_32(SCMP_CMP_EQ, command);
    add(refuse, "fcntl", &owner, 1);
  }
  const scmp_arg_cmp no_thread = SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
  add(refuse, "clone", &no_thread, 1);
  const scmp_arg_cmp not_self = SCMP_A0_32(SCMP_CMP_NE, static_cast<uint32_t>(getpid()));
  add(refuse, "kill", &not_self, 1);
  add(refuse, "tgkill", &not_self, 1);
  // It dies with the launcher, whatever it would rather do.
  const scmp_arg_cmp death = SCMP_A0_32(SCMP_CMP_EQ, PR_SET_PDEATHSIG);
  add(refuse, "prctl", &death, 1);
  // Input for a terminal; flags and attributes of a file that is open for reading.
  for (const uint32_t command : {uint32_t{TIOCSTI}, uint32_t{FS_IOC_SETFLAGS},
                                 uint32_t{FS_IOC_FSSETXATTR}, uint32_t{FS_IOC_SETVERSION}}) {
    const scmp_arg_cmp changes = SCMP_A1_32(SCMP_CMP_EQ, command);
    add(refuse, "ioctl", &changes, 1);
  }
  if (error == 0) check(seccomp_load(filter.get()));
  if (error != 0) return Refused("a seccomp filter", error);
  return OkStatus();
}

bool SeccompAvailable() {
  const uint32_t action = SECCOMP_RET_ERRNO;
  return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

}  // namespace talaria::cvm
