// A conversation with the model in a CVM: keeps the messages, streams the answers.
#ifndef TALARIA_CLIENT_CHAT_H_
#define TALARIA_CLIENT_CHAT_H_

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/client/attested_peer.h"
#include "talaria/client/receipt_copy.h"

namespace talaria::client {

struct ChatOptions {
  std::string token = {};   // of the user; empty: none is sent
  std::string system = {};  // the first message, if any
  // A folder, there already: each answer's receipt is taken, verified and kept in it. Empty: none.
  std::string receipts = {};
  int max_tokens = 0;       // of an answer; 0: the server's own bound
  double temperature = -1;  // below 0: the server's own
  int connect_wait_ms = 30'000;
  int answer_timeout_ms = 3'600'000;  // the CVM's silence
};

// One thread, but `stop` and the interruption are for others.
class Chat {
 public:
  // `peer` outlives the chat.
  Chat(ChatOptions options, AttestedPeer& peer);

  // Asks, and hands each piece of the answer to `on_text`. Both messages are kept only when the
  // answer has come to its end. kCancelled: `stop` was set; kUnavailable: lost, or the stream ended
  // without its end; kUntrusted; kUnsupported: the server refused, with what it said. With receipts
  // also those of TakeReceipt and SaveCopy: the text has come, and nothing proves it.
  Status Ask(const std::string& question, const std::function<void(std::string_view)>& on_text,
             const std::atomic<bool>& stop);
  void Clear();
  size_t messages() const { return messages_.size(); }

 private:
  std::string RequestBody(const std::string& question) const;
  Status KeepReceipt(SecureConnection& connection, bool whole, ReceiptCopy& copy) const;

  const ChatOptions options_;
  AttestedPeer& peer_;
  std::vector<std::pair<std::string, std::string>> messages_;  // role, content
};

// Makes the text of a model safe for a terminal: control characters but tab and line feed are left
// out (also those of UTF-8's second block), so that no answer can move the cursor, set the window's
// title or press keys. Keeps what a piece ends in the middle of.
class TerminalFilter {
 public:
  std::string Clean(std::string_view text);

 private:
  bool after_c2_ = false;  // the first byte of U+0080 to U+00BF
};

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_CHAT_H_
