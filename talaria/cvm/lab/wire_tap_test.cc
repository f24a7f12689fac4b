#include "talaria/cvm/lab/wire_tap.h"

#include <gtest/gtest.h>

#include <thread>

#include "talaria/cvm/run_folder.h"
#include "talaria/wire/connection.h"
#include "talaria/wire/messages.h"
#include "talaria/wire/transport.h"

namespace talaria::cvm::lab {
namespace {

// A cloud that answers every frame with the same frame.
class EchoCloud {
 public:
  explicit EchoCloud(const std::string& address)
      : listener_(std::move(*wire::Listener::Create(*wire::Endpoint::Parse(address)))) {
    thread_ = std::thread([this] {
      auto accepted = listener_->Accept();
      if (!accepted.ok()) return;
      wire::Connection connection(std::move(*accepted), wire::kMaxFrameBytes);
      for (;;) {
        const auto frame = connection.Receive(0);
        if (!frame.ok() || !connection.Send(frame->type, {frame->body}, 1000).ok()) return;
      }
    });
  }
  ~EchoCloud() {
    listener_->Shutdown();
    thread_.join();
  }

 private:
  std::unique_ptr<wire::Listener> listener_;
  std::thread thread_;
};

TEST(WireTapTest, PassesFramesAndKeepsTheFirstResidues) {
  auto folder = RunFolder::Create("");
  ASSERT_TRUE(folder.ok());
  const std::string cloud_address = "unix:" + folder->path() + "/cloud",
                    tap_address = "unix:" + folder->path() + "/tap";
  EchoCloud cloud(cloud_address);
  auto tap = WireTap::Create(tap_address, cloud_address, 1, 3);
  ASSERT_TRUE(tap.ok()) << tap.status().ToString();
  auto transport = wire::Connect(*wire::Endpoint::Parse((*tap)->address()), 1000);
  ASSERT_TRUE(transport.ok());
  wire::Connection cvm(std::move(*transport), wire::kMaxFrameBytes);

  constexpr uint32_t kRows = 2, kWidth = 64;
  std::vector<uint8_t> planes(kRows * 6 * kWidth);
  for (size_t i = 0; i < planes.size(); ++i) planes[i] = static_cast<uint8_t>(i * 7 + 1);
  for (uint64_t call = 0; call < 3; ++call) {
    uint8_t header[wire::kCallHeaderBytes];
    wire::EncodeTo(wire::MultiplyHeader{.call = call, .group = 5, .rows = kRows}, header);
    ASSERT_TRUE(cvm.Send(wire::Type::kMultiply, {header, planes}, 1000).ok());
    const auto echo = cvm.Receive(5000);
    ASSERT_TRUE(echo.ok()) << echo.status().ToString();
    EXPECT_EQ(echo->type, wire::Type::kMultiply);
    EXPECT_EQ(echo->body.size(), sizeof header + planes.size());
  }
  const auto hello = wire::Encode(wire::Hello{});
  ASSERT_TRUE(cvm.Send(wire::Type::kHello, {hello}, 1000).ok());
  ASSERT_TRUE(cvm.Receive(5000).ok());

  const Tapped seen = (*tap)->Seen();
  EXPECT_EQ(seen.calls, 3u);
  EXPECT_EQ(seen.rows, 6u);
  ASSERT_EQ(seen.first.size(), 1u);
  EXPECT_EQ(seen.first[0].group, 5u);
  EXPECT_EQ(seen.first[0].width, kWidth);
  ASSERT_EQ(seen.first[0].first_row.size(), 3u);
  for (size_t j = 0; j < 3; ++j) {
    uint64_t expected = 0;
    for (size_t p = 6; p-- > 0;) expected = expected << 8 | planes[p * kWidth + j];
    EXPECT_EQ(seen.first[0].first_row[j], expected);
  }
  cvm.Shutdown();
}

TEST(WireTapTest, ALostCloudClosesTheConnection) {
  auto folder = RunFolder::Create("");
  ASSERT_TRUE(folder.ok());
  auto tap = WireTap::Create("unix:" + folder->path() + "/tap",
                             "unix:" + folder->path() + "/nobody", 1, 1);
  ASSERT_TRUE(tap.ok());
  auto transport = wire::Connect(*wire::Endpoint::Parse((*tap)->address()), 1000);
  ASSERT_TRUE(transport.ok());
  uint8_t byte;
  EXPECT_EQ((*transport)->ReceiveSome({&byte, 1}, 1, 5000).status().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace talaria::cvm::lab
