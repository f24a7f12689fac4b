// A running server and a client for tests of the server.
#ifndef TALARIA_CLOUD_SERVER_TESTING_H_
#define TALARIA_CLOUD_SERVER_TESTING_H_

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "talaria/base/log.h"
#include "talaria/cloud/server.h"
#include "talaria/cloud/server_tiny_store.h"
#include "talaria/wire/connection.h"

namespace talaria::cloud {

inline ServerOptions TestOptions(const TinyStore& store) {
  ServerOptions options;
  options.store = store.path();
  options.listen = store.socket();
  options.frame_timeout_ms = 5000;
  options.insecure_plaintext = true;
  options.device.isa = DetectIsa();
  options.device.threads = 2;
  return options;
}

// Runs a server until it dies.
class RunningServer {
 public:
  explicit RunningServer(const ServerOptions& options, LogLevel level = LogLevel::kError) {
    SetLog("test", level);
    auto server = Server::Create(options);
    if (!server.ok()) {
      ADD_FAILURE() << server.status().ToString();
      std::abort();
    }
    server_ = std::move(server).value();
    address = server_->address();
    thread_ = std::thread([this] { EXPECT_TRUE(server_->Run().ok()); });
  }
  ~RunningServer() { Stop(); }
  // Milliseconds until every thread of the server had ended.
  int64_t Stop() {
    const auto start = std::chrono::steady_clock::now();
    server_->Stop();
    if (thread_.joinable()) thread_.join();
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 start)
        .count();
  }
  std::string address;

 private:
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

// A well-behaved client, with doors for others.
class Client {
 public:
  explicit Client(const std::string& address)
      : connection(wire::Connect(wire::Endpoint::Parse(address).value(), 2000).value(),
                   wire::kMaxFrameBytes) {}

  Result<wire::HelloReply> Greet(uint32_t max_frame_bytes = wire::kMaxFrameBytes) {
    Send(wire::Type::kHello, Encode(wire::Hello{.max_frame_bytes = max_frame_bytes}));
    const Result<wire::Frame> frame = Receive();
    if (!frame.ok()) return frame.status();
    EXPECT_EQ(frame->type, wire::Type::kHelloReply);
    return wire::DecodeHelloReply(frame->body);
  }
  Result<wire::Frame> Receive() { return connection.Receive(timeout_ms); }
  void Send(wire::Type type, Bytes body) { (void)connection.Send(type, {body}, timeout_ms); }

  Status SendMultiply(uint32_t group, uint32_t rows, Bytes planes) {
    uint8_t header[wire::kCallHeaderBytes];
    EncodeTo(wire::MultiplyHeader{++call_, group, rows}, header);
    return connection.Send(wire::Type::kMultiply, {header, planes}, timeout_ms);
  }
  // The residues, which lie in the connection's buffer.
  Result<Bytes> Multiply(uint32_t group, uint32_t rows, Bytes planes) {
    if (const Status status = SendMultiply(group, rows, planes); !status.ok()) return status;
    const Result<wire::Frame> frame = Receive();
    if (!frame.ok()) return frame.status();
    Bytes residues;
    if (frame->type != wire::Type::kProduct) return Status(Code::kInternal, "not a product");
    const Result<wire::ProductHeader> header = wire::DecodeProduct(frame->body, &residues);
    if (!header.ok()) return header.status();
    EXPECT_EQ(header->call, call_);
    EXPECT_EQ(header->group, group);
    EXPECT_EQ(header->rows, rows);
    return residues;
  }
  // What the server says before it closes; fails the test when it says something else.
  wire::ErrorCode ReceiveErrorAndEnd() {
    const Result<wire::Frame> frame = Receive();
    if (!frame.ok() || frame->type != wire::Type::kError) {
      ADD_FAILURE() << "no Error: " << frame.status().ToString();
      return wire::ErrorCode::kInternal;
    }
    const Result<wire::ErrorMessage> error = wire::DecodeError(frame->body);
    EXPECT_TRUE(error.ok());
    ExpectEnd();
    return error->code;
  }
  void ExpectEnd() {
    const Result<wire::Frame> end = Receive();
    EXPECT_EQ(end.status().code(), Code::kUnavailable);
    EXPECT_EQ(end.status().message().find("no progress"), std::string::npos) << "still open";
  }

  wire::Connection connection;
  int timeout_ms = 5000;

 private:
  uint64_t call_ = 0;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_SERVER_TESTING_H_
