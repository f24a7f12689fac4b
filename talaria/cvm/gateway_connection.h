// One client's connection: read a request, judge it, relay the answer, and again. Internal to the
// gateway; everything runs in the one thread of its io_context.
#ifndef TALARIA_CVM_GATEWAY_CONNECTION_H_
#define TALARIA_CVM_GATEWAY_CONNECTION_H_

#include <atomic>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <string>

#include "talaria/cvm/gateway.h"

namespace talaria::cvm {

// With a concrete executor: half the code and compile time of the type-erased one.
using StreamExecutor = boost::asio::io_context::executor_type;
using StreamSocket =
    boost::asio::basic_stream_socket<boost::asio::generic::stream_protocol, StreamExecutor>;

struct ConnectionCounts {
  int open = 0;                   // connections; only for the gateway's thread
  std::atomic<int> answering{0};  // requests that went to llama-server and are not answered yet
};

// Of a connection that the gateway was handed: both or none.
struct AttestedPeer {
  std::shared_ptr<ClientChannel> channel;
  boost::asio::thread_pool* workers = nullptr;  // for ClientChannel::Attest(); ends before `io`
};

// Serves `socket` until it closes; keeps itself alive by its pending operations. `options` and
// `counts` outlive `io`'s handlers.
void ServeConnection(boost::asio::io_context& io, StreamSocket socket,
                     const GatewayOptions& options, ConnectionCounts& counts, AttestedPeer peer);

// A whole answer for a client that is one too many.
std::string OverloadedAnswer();

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_GATEWAY_CONNECTION_H_
