// LABORATORY ONLY: one file of rows per matrix group, in a recording (doc/recording.md).
#ifndef TALARIA_LAB_ROW_FILES_H_
#define TALARIA_LAB_ROW_FILES_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::lab {

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

// Makes the folder and what is above it. kInvalidArgument when it exists and is not empty: a
// recording is never mixed with another one. kIo.
Status MakeRecordingFolder(const std::string& path);
// A new file. kIo.
Result<File> CreateRecordingFile(const std::string& path);
// kIo when the disk does not take it all.
Status Append(const File& file, Bytes bytes);

// FOLDER/group-<g>.<suffix> for each group that is kept. One thread at a time.
class RowFiles {
 public:
  RowFiles() = default;  // keeps nothing
  // Empty `kept`: all groups. kInvalidArgument for a group that the model has not, kIo.
  static Result<RowFiles> Create(const std::string& folder, const std::string& suffix,
                                 size_t groups, const std::vector<uint32_t>& kept);
  bool Keeps(uint32_t group) const { return group < files_.size() && files_[group] != nullptr; }
  // The rows of a kept group. kIo.
  Status AppendRows(uint32_t group, Bytes rows) const { return Append(files_[group], rows); }
  // What is in the files now is what was appended. kIo.
  Status Flush() const;

 private:
  std::vector<File> files_;  // null for groups that are not kept
};

}  // namespace talaria::lab

#endif  // TALARIA_LAB_ROW_FILES_H_
