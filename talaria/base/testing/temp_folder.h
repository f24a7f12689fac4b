// Test only: a folder of its own, removed with all that is in it.
#ifndef TALARIA_BASE_TESTING_TEMP_FOLDER_H_
#define TALARIA_BASE_TESTING_TEMP_FOLDER_H_

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "talaria/base/result.h"

namespace talaria {

class TempFolder {
 public:
  TempFolder() {
    // Short: the path of a Unix socket in it has at most 107 bytes.
    char name[] = "/tmp/talaria-test-XXXXXX";
    TALARIA_CHECK(mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }  // its path

 private:
  std::string path_;
};

}  // namespace talaria

#endif  // TALARIA_BASE_TESTING_TEMP_FOLDER_H_
