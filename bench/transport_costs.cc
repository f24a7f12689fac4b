#include <sys/socket.h>

#include <chrono>
#include <thread>
#include <vector>

#include "bench/kernel_costs.h"
#include "talaria/base/openssl.h"
#include "talaria/wire/connection.h"

namespace talaria::bench {
namespace {

constexpr size_t kRecordBytes = 16 << 10;
constexpr int kTimeoutMs = 30000;

}  // namespace

CallCosts MeasureCall(size_t bytes_up, size_t bytes_down, const Timing& timing) {
  int fds[2];
  TALARIA_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  wire::Connection client(wire::TransportFromSocket(Fd(fds[0])), wire::kMaxFrameBytes);
  wire::Connection server(wire::TransportFromSocket(Fd(fds[1])), wire::kMaxFrameBytes);
  const std::vector<uint8_t> request(bytes_up, 1), reply(bytes_down, 2);
  std::thread answering([&] {
    while (server.Receive(0, kTimeoutMs).ok() &&
           server.Send(wire::Type::kProduct, {reply}, kTimeoutMs).ok()) {
    }
  });
  std::vector<double> wall, cpu;
  for (int run = -1; run < timing.runs; ++run) {  // the first is a warm-up
    const double cpu_start = ThreadCpuSeconds();
    const auto start = std::chrono::steady_clock::now();
    double seconds = 0, calls = 0;
    while (seconds < timing.seconds) {
      TALARIA_CHECK(client.Send(wire::Type::kMultiply, {request}, kTimeoutMs).ok());
      TALARIA_CHECK(client.Receive(kTimeoutMs).ok());
      ++calls;
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    if (run < 0) continue;
    wall.push_back(seconds / calls * 1e6);
    cpu.push_back((ThreadCpuSeconds() - cpu_start) / calls * 1e6);
  }
  client.Shutdown();
  answering.join();
  return {Summarise(std::move(wall)), Summarise(std::move(cpu))};
}

Result<Summary> MeasureEncryption(const Timing& timing) {
  const Owned<EVP_CIPHER_CTX> context(EVP_CIPHER_CTX_new());
  const std::vector<uint8_t> key(32, 1), plain(kRecordBytes, 2);
  std::vector<uint8_t> nonce(12, 0), sealed(kRecordBytes), tag(16);
  std::vector<double> samples;
  for (int run = 0; run < timing.runs; ++run) {
    const double start = ThreadCpuSeconds();
    double elapsed = 0, bytes = 0;
    while (elapsed < timing.seconds) {
      ++nonce[0];
      int n = 0;
      if (context == nullptr ||
          EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(), nonce.data()) !=
              1 ||
          EVP_EncryptUpdate(context.get(), sealed.data(), &n, plain.data(),
                            static_cast<int>(plain.size())) != 1 ||
          EVP_EncryptFinal_ex(context.get(), sealed.data(), &n) != 1 ||
          EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, 16, tag.data()) != 1) {
        return Status(Code::kInternal, "AES-256-GCM failed");
      }
      bytes += kRecordBytes;
      elapsed = ThreadCpuSeconds() - start;
    }
    samples.push_back(elapsed / bytes * 1e9);
  }
  return Summarise(std::move(samples));
}

}  // namespace talaria::bench
