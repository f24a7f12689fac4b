#include "talaria/engine/group_multiplier.h"

#include <algorithm>
#include <cstring>

namespace talaria::engine {

bool SameBytes(const void* a, const void* b, size_t size) {
  const auto* x = static_cast<const unsigned char*>(a);
  const auto* y = static_cast<const unsigned char*>(b);
  uint64_t difference = 0;
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t u, v;
    std::memcpy(&u, x + i, 8);
    std::memcpy(&v, y + i, 8);
    difference |= u ^ v;
  }
  for (; i < size; ++i) difference |= static_cast<uint64_t>(x[i] ^ y[i]);
  return difference == 0;
}

GroupMultiplier::GroupMultiplier(ChannelClient& channel)
    : channel_(channel), open_(channel.model().groups.size()) {}

MultiplyOutcome GroupMultiplier::Multiply(uint32_t group, uint32_t member, const InputRows& in,
                                          const OutputRows& out) {
  if (in.count() == 0) return MultiplyOutcome::kOk;
  const Reply* reply = open_[group].get();
  const bool served = reply != nullptr && reply->rows == in.count() && !reply->served[member];
  const MultiplyOutcome outcome =
      served ? Serve(group, member, in, out) : Request(group, member, in, out);
  if (outcome != MultiplyOutcome::kOk) {
    // The evaluation ends here, so the schedule that not_finite_ waits for has ended too.
    DropReplies();
    not_finite_ = false;
  }
  return outcome;
}

MultiplyOutcome GroupMultiplier::Serve(uint32_t group, uint32_t member, const InputRows& in,
                                       const OutputRows& out) {
  Reply& reply = *open_[group];
  const size_t d = channel_.model().groups[group].d,
               o = channel_.model().groups[group].members[member].o;
  bool same = true;
  for (int64_t i = 0; i < reply.rows; ++i) {
    same &=
        SameBytes(in.Row(i), reply.input.data() + static_cast<size_t>(i) * d, d * sizeof(float));
  }
  if (!same) return MultiplyOutcome::kRefused;
  for (int64_t i = 0; i < reply.rows; ++i) {
    std::memcpy(out.Row(i), reply.outputs[member].data() + static_cast<size_t>(i) * o,
                o * sizeof(float));
  }
  reply.served[member] = true;
  if (--reply.unserved == 0) Drop(group);
  return MultiplyOutcome::kOk;
}

MultiplyOutcome GroupMultiplier::Request(uint32_t group, uint32_t member, const InputRows& in,
                                         const OutputRows& out) {
  const ChannelGroup& g = channel_.model().groups[group];
  const size_t d = g.d;
  const int64_t rows = in.count();
  Drop(group);
  std::unique_ptr<Reply> reply;
  if (g.members.size() > 1) {
    if (!spare_.empty()) {
      reply = std::move(spare_.back());
      spare_.pop_back();
    } else {
      reply = std::make_unique<Reply>();
    }
    reply->rows = rows;
    reply->input.resize(static_cast<size_t>(rows) * d);
    reply->outputs.resize(g.members.size());
    for (size_t m = 0; m < g.members.size(); ++m) {
      if (m != member) reply->outputs[m].resize(static_cast<size_t>(rows) * g.members[m].o);
    }
    reply->served.assign(g.members.size(), false);
    reply->served[member] = true;
    reply->unserved = static_cast<uint32_t>(g.members.size()) - 1;
  }

  const int64_t most = channel_.MaxRows(group);
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t n = std::min(most, rows - first);
    float* input = channel_.Input();
    for (int64_t i = 0; i < n; ++i) {
      const char* row = in.Row(first + i);
      std::memcpy(input + static_cast<size_t>(i) * d, row, d * sizeof(float));
      if (reply)
        std::memcpy(reply->input.data() + static_cast<size_t>(first + i) * d, row,
                    d * sizeof(float));
    }
    const CallStatus status = channel_.Call(group, static_cast<uint32_t>(n));
    if (status == CallStatus::kNotFinite) {
      not_finite_ =
          true;  // the rows are zeros; the evaluation goes on, so that the cloud sees nothing of it
    } else if (status != CallStatus::kOk) {
      return MultiplyOutcome::kFailed;
    }
    for (uint32_t m = 0; m < g.members.size(); ++m) {
      const size_t o = g.members[m].o;
      const float* products = channel_.Output(group, static_cast<uint32_t>(n), m);
      if (m == member) {
        for (int64_t i = 0; i < n; ++i)
          std::memcpy(out.Row(first + i), products + static_cast<size_t>(i) * o, o * sizeof(float));
      } else {
        std::memcpy(reply->outputs[m].data() + static_cast<size_t>(first) * o, products,
                    static_cast<size_t>(n) * o * sizeof(float));
      }
    }
  }
  open_[group] = std::move(reply);
  return MultiplyOutcome::kOk;
}

void GroupMultiplier::Drop(uint32_t group) {
  if (open_[group]) spare_.push_back(std::move(open_[group]));
}

void GroupMultiplier::DropReplies() {
  for (uint32_t g = 0; g < open_.size(); ++g) Drop(g);
}

bool GroupMultiplier::EndEvaluation() {
  DropReplies();
  const bool finite = !not_finite_;
  not_finite_ = false;
  return finite;
}

}  // namespace talaria::engine
