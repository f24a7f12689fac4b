// What engine_host_test starts in place of llama-server: the child's end of the channel with a
// script, without ggml. Exits with 0 when everything was as the script expects.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>

#include "talaria/engine/channel.h"
#include "talaria/engine/hardening.h"
#include "talaria/engine/shared_region.h"

extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "detect_leaks=0";
}

namespace {

using namespace talaria::engine;

void Require(bool condition, int code) {
  if (!condition) _exit(code);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string script = argc > 1 ? argv[1] : "";
  auto client = ChannelClient::Connect(kSharedMemoryFd, kSocketFd);
  Require(client.ok(), 10);
  ChannelClient& channel = **client;
  if (channel.harden()) Require(HardenProcess().ok(), 11);
  Require(getenv("GGML_NO_BACKTRACE") != nullptr && getenv("GGML_BACKEND_PATH") != nullptr &&
              getenv("HOME") == nullptr,
          12);

  if (script == "multiply") {
    channel.Notify(ChildEvent::kAllMatricesLanded);
    for (int call = 0; call < 50; ++call) {
      for (uint32_t g = 0; g < channel.model().groups.size(); ++g) {
        const uint32_t d = channel.model().groups[g].d, rows = 3;
        for (uint32_t i = 0; i < rows * d; ++i) channel.Input()[i] = static_cast<float>(i % d);
        Require(channel.Call(g, rows) == CallStatus::kOk, 20);
        // As the test's session answers: 1000 group + 100 member + row.
        for (uint32_t m = 0; m < channel.model().groups[g].members.size(); ++m) {
          const uint32_t o = channel.model().groups[g].members[m].o;
          for (uint32_t r = 0; r < rows; ++r) {
            for (uint32_t j = 0; j < o; ++j)
              Require(channel.Output(g, rows, m)[r * o + j] ==
                          static_cast<float>(1000 * g + 100 * m + r),
                      21);
          }
        }
      }
    }
  } else if (script == "status") {
    for (uint32_t i = 0; i < channel.model().groups[0].d; ++i)
      channel.Input()[i] = static_cast<float>(i);
    Require(static_cast<int>(channel.Call(0, 1)) == atoi(argv[2]), 22);
  } else if (script == "refuse") {
    channel.Notify(ChildEvent::kRefused);
    for (;;) pause();
  } else if (script == "break") {
    auto region = SharedRegion::Map(kSharedMemoryFd);
    Require(region.ok(), 13);
    Store(region->header().rows, 1u << 30);
    Store(region->header().call_sequence, 1);
    Increment(region->header().doorbell);
    for (;;) pause();
  } else if (script == "skeleton") {
    // As llama.cpp opens it, after the process was made undumpable.
    const int fd = open("/proc/self/fd/5", O_RDONLY);
    char text[16] = {};
    Require(fd >= 0 && read(fd, text, sizeof text - 1) > 0 && strcmp(text, "skeleton") == 0, 23);
    Require(open("/proc/self/fd/5", O_RDWR) < 0 || ftruncate(5, 0) != 0, 24);
  } else if (script == "sleep") {
    for (;;) pause();
  } else {
    return 98;
  }
  return 0;
}
