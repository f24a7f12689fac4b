// What launcher_test starts: does what its first argument says, writes its findings to descriptor
// 7, and exits with 0 unless the argument asks for something else.
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <string>
#include <thread>

extern char** environ;

// The leak check needs ptrace and another process, which the sandbox refuses.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "detect_leaks=0";
}

namespace {

void Say(const std::string& text) {
  if (write(7, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(99);
}
void SayResult(const char* what, long result) {
  Say(std::string(what) + (result < 0 ? std::string("=") + strerrorname_np(errno) : "=ok") + " ");
}

void OpenDescriptors() {
  DIR* directory = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(directory)) {
    const int fd = atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != dirfd(directory)) Say(std::to_string(fd) + " ");
  }
  closedir(directory);
}

void TryForbidden() {
  SayResult("inet", socket(AF_INET, SOCK_STREAM, 0));
  SayResult("inet6", socket(AF_INET6, SOCK_DGRAM, 0));
  SayResult("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
  SayResult("packet", socket(AF_PACKET, SOCK_RAW, 0));
  SayResult("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
  const int local = socket(AF_UNIX, SOCK_STREAM, 0);
  SayResult("unix", local);
  SayResult("datagram", socket(AF_UNIX, SOCK_DGRAM, 0));
  int pair[2];
  SayResult("packets", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
  rlimit limit{};
  SayResult("limits", prlimit(getppid(), RLIMIT_NOFILE, nullptr, &limit));
  SayResult("owner", fcntl(local, F_SETOWN, getppid()));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, "/nowhere");
  SayResult("connect", connect(local, reinterpret_cast<sockaddr*>(&address), sizeof address));
  SayResult("fork", fork());
  SayResult("vfork", syscall(SYS_vfork));
  SayResult("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
  SayResult("kill", kill(getppid(), 0));
  SayResult("self", kill(getpid(), 0));
  iovec vector{};
  SayResult("vm", process_vm_readv(getppid(), &vector, 1, &vector, 1, 0));
  SayResult("aio", syscall(SYS_io_setup, 1, nullptr));
  SayResult("uring", syscall(SYS_io_uring_setup, 1, nullptr));
  SayResult("bpf", syscall(SYS_bpf, 0, nullptr, 0));
  SayResult("userns", syscall(SYS_unshare, 0x10000000));
  SayResult("priority", setpriority(PRIO_PROCESS, static_cast<id_t>(getppid()), 19));
  cpu_set_t processors;
  SayResult("where", sched_getaffinity(0, sizeof processors, &processors));
  SayResult("elsewhere", sched_setaffinity(getppid(), sizeof processors, &processors));
  SayResult("here", sched_setaffinity(0, sizeof processors, &processors));
  std::thread thread([] { Say("thread=ok "); });
  thread.join();
}

// argv: a file that may be read, a folder that may hold sockets.
void TryFiles(const char* allowed, const std::string& folder) {
  SayResult("allowed", open(allowed, O_RDONLY));
  SayResult("other", open("/etc/passwd", O_RDONLY));
  SayResult("pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
  SayResult("device", open("/dev/kmsg", O_WRONLY));
  SayResult("file", open((folder + "/file").c_str(), O_WRONLY | O_CREAT, 0600));
  const int local = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, (folder + "/s").c_str(), sizeof address.sun_path - 1);
  SayResult("socket", bind(local, reinterpret_cast<sockaddr*>(&address), sizeof address));
  const int elsewhere = socket(AF_UNIX, SOCK_STREAM, 0);
  strcpy(address.sun_path, "/tmp/talaria-launcher-test-elsewhere");
  SayResult("elsewhere", bind(elsewhere, reinterpret_cast<sockaddr*>(&address), sizeof address));
}

// argv: a file of this user. What a file system keeps besides a file's bytes outlives the process,
// too.
void TryMarks(const char* file) {
  SayResult("mode", chmod(file, 0644));
  SayResult("modeat", fchmodat(AT_FDCWD, file, 0644, 0));
  SayResult("owner", chown(file, getuid(), getgid()));
  const timespec times[2] = {{1, 0}, {2, 0}};
  SayResult("times", utimensat(AT_FDCWD, file, times, 0));
  SayResult("attribute", setxattr(file, "user.talaria", "1", 1, 0));
  SayResult("removal", removexattr(file, "user.talaria"));
  SayResult("cut", truncate(file, 0));
  int flags = 0;
  SayResult("flags", ioctl(7, FS_IOC_SETFLAGS, &flags));
  SayResult("orphan", prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
}

void Describe() {
  rlimit core{}, stack{};
  getrlimit(RLIMIT_CORE, &core);
  getrlimit(RLIMIT_STACK, &stack);
  int death_signal = 0;
  prctl(PR_GET_PDEATHSIG, &death_signal, 0, 0, 0);
  char directory[4096];
  Say("core=" + std::to_string(core.rlim_max) +
      " nnp=" + std::to_string(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)) +
      " death=" + std::to_string(death_signal) + " cwd=" + getcwd(directory, sizeof directory) +
      " seccomp=" + std::to_string(prctl(PR_GET_SECCOMP, 0, 0, 0, 0)));
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  syscall(SYS_capget, &header, data);
  Say(" caps=" +
      std::to_string(data[0].effective | data[1].effective | data[0].permitted |
                     data[1].permitted) +
      " stack=" + std::to_string(stack.rlim_cur >> 20));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "exit") return atoi(argv[2]);
  if (what == "abort") abort();
  if (what == "sleep") {
    Say("sleeping");
    for (;;) pause();
  }
  if (what == "environment") {
    for (char** e = environ; *e != nullptr; ++e) Say(std::string(*e) + "\n");
  } else if (what == "descriptors") {
    OpenDescriptors();
  } else if (what == "forbidden") {
    TryForbidden();
  } else if (what == "files") {
    TryFiles(argv[2], argv[3]);
  } else if (what == "marks") {
    TryMarks(argv[2]);
  } else if (what == "describe") {
    Describe();
  } else if (what == "interfaces") {
    struct if_nameindex* names = if_nameindex();
    for (auto* i = names; i != nullptr && i->if_index != 0; ++i) Say(std::string(i->if_name) + " ");
    Say(names == nullptr ? "none" : "end");
  } else if (what == "netns") {
    char link[100] = {};
    if (readlink("/proc/self/ns/net", link, sizeof link - 1) < 0) return 1;
    Say(link);
  } else if (what == "output") {
    printf("to standard output\n");
    fprintf(stderr, "to standard error\n");
    fflush(stdout);
    char byte;
    Say(read(0, &byte, 1) == 0 ? "input empty" : "input!");
  } else {
    return 98;
  }
  return 0;
}
