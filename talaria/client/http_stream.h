// Beast over a ReadAhead, synchronously. Internal: only few .cc files include Boost.
#ifndef TALARIA_CLIENT_HTTP_STREAM_H_
#define TALARIA_CLIENT_HTTP_STREAM_H_

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/system/system_error.hpp>
#include <vector>

#include "talaria/client/read_ahead.h"

namespace talaria::client {

// What Beast calls a SyncStream. All failures are the error eof; status() has the cause.
class HttpStream {
 public:
  explicit HttpStream(ReadAhead& connection, int send_timeout_ms)
      : connection_(connection), send_timeout_ms_(send_timeout_ms) {}
  void set_deadline(TimePoint deadline) { deadline_ = deadline; }  // of the reads
  const Status& status() const { return status_; }

  template <class Buffers>
  size_t read_some(const Buffers& buffers, boost::system::error_code& error) {
    error = {};
    for (auto it = boost::asio::buffer_sequence_begin(buffers);
         it != boost::asio::buffer_sequence_end(buffers); ++it) {
      const boost::asio::mutable_buffer buffer(*it);
      if (buffer.size() == 0) continue;
      const Result<size_t> n =
          connection_.ReadSome({static_cast<uint8_t*>(buffer.data()), buffer.size()}, deadline_);
      if (n.ok()) return *n;
      status_ = n.status();
      error = boost::asio::error::eof;
      return 0;
    }
    return 0;
  }
  // All of it, in one piece: a chunk's size, bytes and end are one record below.
  template <class Buffers>
  size_t write_some(const Buffers& buffers, boost::system::error_code& error) {
    error = {};
    out_.clear();
    for (auto it = boost::asio::buffer_sequence_begin(buffers);
         it != boost::asio::buffer_sequence_end(buffers); ++it) {
      const boost::asio::const_buffer buffer(*it);
      const auto* data = static_cast<const uint8_t*>(buffer.data());
      out_.insert(out_.end(), data, data + buffer.size());
    }
    if (out_.empty()) return 0;
    if (Status status = connection_.Send({out_}, send_timeout_ms_); !status.ok()) {
      status_ = std::move(status);
      error = boost::asio::error::eof;
      return 0;
    }
    return out_.size();
  }
  template <class Buffers>
  size_t read_some(const Buffers& buffers) {
    boost::system::error_code error;
    const size_t n = read_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return n;
  }
  template <class Buffers>
  size_t write_some(const Buffers& buffers) {
    boost::system::error_code error;
    const size_t n = write_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return n;
  }

 private:
  ReadAhead& connection_;
  const int send_timeout_ms_;
  TimePoint deadline_;
  Status status_;
  std::vector<uint8_t> out_;
};

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_HTTP_STREAM_H_
