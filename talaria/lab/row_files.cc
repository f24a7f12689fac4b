#include "talaria/lab/row_files.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace talaria::lab {

Status MakeRecordingFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Status(Code::kIo, path + ": " + error.message());
  if (!std::filesystem::is_empty(path, error) || error) {
    return Status(Code::kInvalidArgument,
                  path + " is not empty: a recording needs a folder of its own");
  }
  return OkStatus();
}

Result<File> CreateRecordingFile(const std::string& path) {
  File file(std::fopen(path.c_str(), "wbxe"));
  if (file == nullptr) return Status(Code::kIo, path + ": " + std::strerror(errno));
  return file;
}

Status Append(const File& file, Bytes bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file.get()) == bytes.size()) return OkStatus();
  return Status(Code::kIo,
                std::string("the recording could not be written: ") + std::strerror(errno));
}

Result<RowFiles> RowFiles::Create(const std::string& folder, const std::string& suffix,
                                  size_t groups, const std::vector<uint32_t>& kept) {
  RowFiles out;
  out.files_.resize(groups);
  std::vector<uint32_t> wanted = kept;
  if (wanted.empty()) {
    for (uint32_t g = 0; g < groups; ++g) wanted.push_back(g);
  }
  for (const uint32_t group : wanted) {
    if (group >= groups) {
      return Status(Code::kInvalidArgument, "there is no group " + std::to_string(group) +
                                                ": the model has " + std::to_string(groups));
    }
    if (out.files_[group] != nullptr) continue;
    TALARIA_ASSIGN_OR_RETURN(
        out.files_[group],
        CreateRecordingFile(folder + "/group-" + std::to_string(group) + "." + suffix));
  }
  return out;
}

Status RowFiles::Flush() const {
  for (const File& file : files_) {
    if (file != nullptr && std::fflush(file.get()) != 0)
      return Status(Code::kIo, "the recording could not be written");
  }
  return OkStatus();
}

}  // namespace talaria::lab
