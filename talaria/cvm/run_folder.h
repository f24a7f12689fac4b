// A folder of mode 0700 for the engine's socket, removed at the end.
#ifndef TALARIA_CVM_RUN_FOLDER_H_
#define TALARIA_CVM_RUN_FOLDER_H_

#include <string>
#include <utility>

#include "talaria/base/result.h"

namespace talaria::cvm {

class RunFolder {
 public:
  // An empty path: a fresh folder under /run, or under /tmp where /run is not ours to write. A
  // path: made, or taken if it is ours and nobody else may enter it. kIo, kInvalidArgument.
  static Result<RunFolder> Create(const std::string& path);
  ~RunFolder();  // removes the engine's socket, and the folder if it was made here
  RunFolder(RunFolder&& other) noexcept
      : path_(std::exchange(other.path_, {})), made_(other.made_) {}
  RunFolder& operator=(RunFolder&&) = delete;
  RunFolder(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string engine_socket() const { return path_ + "/llama.sock"; }

 private:
  RunFolder(std::string path, bool made) : path_(std::move(path)), made_(made) {}
  std::string path_;
  bool made_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_RUN_FOLDER_H_
