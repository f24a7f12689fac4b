// A program in a folder of its own, as its users run it.
#ifndef APPS_TALARIA_TESTING_H_
#define APPS_TALARIA_TESTING_H_

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "talaria/base/testing/temp_folder.h"

namespace talaria {

struct Outcome {
  int code = -1;
  std::string out, err;
};

inline std::string Slurp(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

class ProgramTest : public ::testing::Test {
 protected:
  explicit ProgramTest(const std::string& name)
      : program_(std::string(std::getenv("TALARIA_BUILD_DIR")) + "/bin/" + name) {}

  // `arguments` goes through the shell, with the program as `{}` if it is not first.
  Outcome Run(std::string arguments) const {
    if (arguments.find("{}") == std::string::npos) arguments = "{} " + arguments;
    arguments.replace(arguments.find("{}"), 2, "'" + program_ + "'");
    const std::string command = "cd '" + folder_ + "' && (" + arguments + ") >out 2>err";
    const int state = std::system(command.c_str());
    return {WIFEXITED(state) ? WEXITSTATUS(state) : -1, Slurp(folder_ + "/out"),
            Slurp(folder_ + "/err")};
  }
  void WriteFile(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ + "/" + name) << text;
  }

  const TempFolder temp_;
  const std::string& folder_ = temp_.path();
  const std::string program_;
};

}  // namespace talaria

#endif  // APPS_TALARIA_TESTING_H_
