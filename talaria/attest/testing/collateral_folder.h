// A folder of collateral for tests, filled from testdata/attestation; removed at the end.
#ifndef TALARIA_ATTEST_TESTING_COLLATERAL_FOLDER_H_
#define TALARIA_ATTEST_TESTING_COLLATERAL_FOLDER_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "talaria/base/testing/temp_folder.h"

namespace talaria::attest {

class CollateralFolder : public TempFolder {
 public:
  // tdx/FMSPC, from the vector of that name.
  void AddTdx(const std::string& fmspc, const std::string& vector) const {
    const char* testdata = std::getenv("TALARIA_TESTDATA");
    ASSERT_NE(testdata, nullptr) << "TALARIA_TESTDATA is not set";
    std::filesystem::create_directories(File("tdx"));
    std::filesystem::copy(std::string(testdata) + "/attestation/tdx/" + vector + "/collateral",
                          File("tdx/" + fmspc));
  }
  void Write(const std::string& name, const std::vector<uint8_t>& bytes) const {
    const std::filesystem::path file = File(name);
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  void Write(const std::string& name, const std::string& text) const {
    Write(name, std::vector<uint8_t>(text.begin(), text.end()));
  }
  std::string Read(const std::string& name) const {
    std::ifstream in(File(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  void Remove(const std::string& name) const { std::filesystem::remove_all(File(name)); }
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TESTING_COLLATERAL_FOLDER_H_
