// A folder of collateral for tests, filled from testdata/attestation; removed at the end.
#ifndef TALARIA_ATTEST_TESTING_COLLATERAL_FOLDER_H_
#define TALARIA_ATTEST_TESTING_COLLATERAL_FOLDER_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace talaria::attest {

class CollateralFolder {
 public:
  CollateralFolder() {
    std::string name = testing::TempDir() + "/talaria_collateral.XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~CollateralFolder() { std::filesystem::remove_all(path_); }
  CollateralFolder(const CollateralFolder&) = delete;
  CollateralFolder& operator=(const CollateralFolder&) = delete;

  const std::string& path() const { return path_; }
  // tdx/FMSPC, from the vector of that name.
  void AddTdx(const std::string& fmspc, const std::string& vector) const {
    const char* testdata = std::getenv("TALARIA_TESTDATA");
    ASSERT_NE(testdata, nullptr) << "TALARIA_TESTDATA is not set";
    std::filesystem::create_directories(path_ + "/tdx");
    std::filesystem::copy(std::string(testdata) + "/attestation/tdx/" + vector + "/collateral",
                          path_ + "/tdx/" + fmspc);
  }
  void Write(const std::string& name, const std::vector<uint8_t>& bytes) const {
    const std::filesystem::path file = path_ + "/" + name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  void Write(const std::string& name, const std::string& text) const {
    Write(name, std::vector<uint8_t>(text.begin(), text.end()));
  }
  std::string Read(const std::string& name) const {
    std::ifstream in(path_ + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  void Remove(const std::string& name) const { std::filesystem::remove_all(path_ + "/" + name); }

 private:
  std::string path_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TESTING_COLLATERAL_FOLDER_H_
