// llama-server with every log on, whatever its arguments say: all messages, to its output and to a
// file beside its socket. What the launcher's arguments forbid, the sandbox must make harmless.
#include <cstring>
#include <string>
#include <vector>

int llama_server(int argc, char** argv);  // of libllama-server-impl

int main(int argc, char** argv) {
  std::vector<std::string> arguments;
  std::string folder = ".";
  for (int i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--host" && i + 1 < argc) folder = std::string(argv[i + 1]);
    if (argument == "-lv") ++i;
    if (argument != "-lv" && argument != "--log-disable") arguments.push_back(argument);
  }
  folder = folder.substr(0, folder.rfind('/'));
  for (const std::string& argument :
       {std::string("--verbose"), std::string("--log-file"), folder + "/loud.log"})
    arguments.push_back(argument);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  return llama_server(static_cast<int>(arguments.size()), pointers.data());
}
