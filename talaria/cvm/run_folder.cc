#include "talaria/cvm/run_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace talaria::cvm {
namespace {

Status Failed(const std::string& path) {
  return Status(Code::kIo, path + ": " + std::strerror(errno));
}

}  // namespace

Result<RunFolder> RunFolder::Create(const std::string& path) {
  if (path.empty()) {
    for (const char* place : {"/run/talaria-XXXXXX", "/tmp/talaria-XXXXXX"}) {
      std::string name = place;
      if (mkdtemp(name.data())) return RunFolder(std::move(name), true);
    }
    return Failed("a folder under /run or /tmp");
  }
  if (path.size() + sizeof "/llama.sock" > sizeof(sockaddr_un::sun_path)) {
    return Status(Code::kInvalidArgument, path + ": too long for the path of a Unix socket");
  }
  if (mkdir(path.c_str(), 0700) == 0) {
    // Whatever the umask says.
    if (chmod(path.c_str(), 0700) != 0) return Failed(path);
    return RunFolder(path, true);
  }
  if (errno != EEXIST) return Failed(path);
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return Failed(path);
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 0077) != 0) {
    return Status(
        Code::kInvalidArgument,
        path + ": exists and is not a folder of ours that is closed to others (mode 0700)");
  }
  RunFolder folder(path, false);
  if (unlink(folder.engine_socket().c_str()) != 0 && errno != ENOENT)
    return Failed(folder.engine_socket());
  return folder;
}

RunFolder::~RunFolder() {
  if (path_.empty()) return;
  (void)unlink(engine_socket().c_str());
  if (made_) (void)rmdir(path_.c_str());
}

}  // namespace talaria::cvm
