// Calls of the channel for the products that llama.cpp asks for one by one. llama.cpp multiplies by
// attn_q, then, after other nodes, by attn_k and attn_v, all with the same input: the first of a
// group that is asked for sends the input and receives the products of the whole group; each of the
// others is served once from that reply. A matrix that is asked for again, or with another number
// of rows, starts a new call. Which calls are made is therefore a function of the graph and of row
// counts alone; nothing is ever looked up by comparing values, because a value-dependent skip would
// show the cloud repeated tokens. The input of a member served from a reply is compared with the
// input that was sent, as an assertion, in constant time.
//
// Knows nothing of ggml. One object per evaluation context, one thread at a time.
#ifndef TALARIA_ENGINE_GROUP_MULTIPLIER_H_
#define TALARIA_ENGINE_GROUP_MULTIPLIER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "talaria/engine/channel.h"

namespace talaria::engine {

// Rows of contiguous floats in up to three dimensions of strides, in bytes: row (i1, i2, i3) is at
// data + i1 nb1 + i2 nb2 + i3 nb3.
template <class Byte>  // const char or char
struct StridedRows {
  Byte* data = nullptr;
  int64_t ne1 = 0, ne2 = 1, ne3 = 1;
  size_t nb1 = 0, nb2 = 0, nb3 = 0;
  int64_t count() const { return ne1 * ne2 * ne3; }
  Byte* Row(int64_t i) const {
    const int64_t i1 = i % ne1, i2 = i / ne1 % ne2, i3 = i / ne1 / ne2;
    return data + static_cast<size_t>(i1) * nb1 + static_cast<size_t>(i2) * nb2 +
           static_cast<size_t>(i3) * nb3;
  }
};
using InputRows = StridedRows<const char>;
using OutputRows = StridedRows<char>;

enum class MultiplyOutcome {
  kOk,
  kFailed,   // this evaluation has failed, or the session has ended; the output is untouched or
             // partly written
  kRefused,  // two matrices of a group were given different inputs: the manifest's group is not
             // what the graph does. Fatal
};

class GroupMultiplier {
 public:
  explicit GroupMultiplier(ChannelClient& channel);  // which must outlive this

  // in: rows of d floats; out: as many rows of o floats of member `member` of group `group`. No
  // rows: nothing happens.
  MultiplyOutcome Multiply(uint32_t group, uint32_t member, const InputRows& in,
                           const OutputRows& out);

  // The evaluation's last product is done: replies that nobody asked for are dropped. False if a
  // row of this evaluation was not finite: the schedule was carried out to its end, and now the
  // evaluation must fail.
  [[nodiscard]] bool EndEvaluation();
  bool not_finite() const { return not_finite_; }
  // Forgets the replies that nobody asked for: what an evaluation that stopped half-way has left.
  void DropReplies();

 private:
  // What came back for a group and was not yet asked for. Private memory: the channel holds one
  // call only.
  struct Reply {
    std::vector<float> input;                 // [rows][d]
    std::vector<std::vector<float>> outputs;  // per member [rows][o]
    std::vector<bool> served;
    uint32_t unserved = 0;
    int64_t rows = 0;
  };
  MultiplyOutcome Serve(uint32_t group, uint32_t member, const InputRows& in,
                        const OutputRows& out);
  MultiplyOutcome Request(uint32_t group, uint32_t member, const InputRows& in,
                          const OutputRows& out);
  void Drop(uint32_t group);

  ChannelClient& channel_;
  std::vector<std::unique_ptr<Reply>> open_;  // by group; null when there is no reply
  std::vector<std::unique_ptr<Reply>>
      spare_;  // buffers to use again, so that memory follows the open replies, not the groups
  bool not_finite_ = false;
};

// Equal or not, in time that depends on the size only.
bool SameBytes(const void* a, const void* b, size_t size);

}  // namespace talaria::engine

#endif  // TALARIA_ENGINE_GROUP_MULTIPLIER_H_
