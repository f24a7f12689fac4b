// One group: [d x o_padded], its members side by side, each from a column that is a multiple of 32.
//
//   weights  digest, norms, u += W v and u' += W v' while they stream past; then they are gone
//   scales   digest, finite and positive
//   hints    digest while they stream into their own memory; sum' += hints . v'
//   at the end of the group, after every digest fitted: sum' = A . u' for all 2,048 rows
//
// v stays secret for the life of the session (it checks every product); v' is spent here, so that
// whatever a refused model betrays by being refused says nothing about v. Both are drawn anew when
// a transfer is begun anew.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "talaria/cvm/check_math.h"
#include "talaria/cvm/entropy.h"
#include "talaria/cvm/setup_parts.h"
#include "talaria/ring/aes_ctr.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm::internal {
namespace {

using model::StreamKind;
using ring::kBlockBytes;
using ring::kBlockColumns;

constexpr size_t kHintVectors = 2;               // 2^-96, whatever check_vectors is
constexpr size_t kWeightStep = size_t{4} << 20;  // bytes; at least one column
constexpr size_t kHintStepBlocks = 40;           // 3.9 MB: one chunk of the wire

// Uniform residues: 128 bits reduced mod q are 2^-80 from uniform, without a rejection.
Status DrawVectors(RdseedPolicy policy, std::span<uint64_t> out) {
  SecretKey<32> key;
  TALARIA_RETURN_IF_ERROR(FreshKey(policy, "talaria/check-vectors/v1", key.Expose()));
  ring::AesCtrStream stream(key.Expose(), 0);
  SecretKey<16 * 64> words;
  for (size_t first = 0; first < out.size(); first += 64) {
    stream.Next(words.Expose());
    for (size_t i = 0; i < std::min<size_t>(64, out.size() - first); ++i) {
      WideSum word;
      std::memcpy(&word, words.Expose().data() + 16 * i, sizeof(word));
      out[first + i] = ring::Reduce128(word);
    }
  }
  return OkStatus();
}

// Everything that a group's tasks share. Lives until its last task has run.
struct GroupWork {
  const SetupOptions& options;
  MaskedGroup& out;
  const SecretMemory& a;
  size_t vectors;  // of v
  WeightNorms norms;
  SecretMemory v_hint;   // [2][o_padded]
  SecretMemory u_hint;   // [2][d_padded]
  SecretMemory sums;     // [2][2048] WideSum: hints . v'
  SecretMemory scratch;  // [4][d] int64
  std::vector<uint8_t> buffers[SetupWorker::kBuffers];
  size_t next_buffer = 0;
  std::unique_ptr<Sha256> hash;  // of the matrix that streams now; worker only

  std::span<uint64_t> Row(const SecretMemory& memory, size_t k, size_t width) const {
    return memory.Expose<uint64_t>().subspan(k * width, width);
  }
};

Status Allocate(GroupWork& work) {
  const LockPolicy lock = work.options.lock;
  const MaskedGroup& out = work.out;
  const auto create = [lock](SecretMemory& memory, size_t bytes) -> Status {
    TALARIA_ASSIGN_OR_RETURN(memory, SecretMemory::Create(bytes, lock));
    return OkStatus();
  };
  TALARIA_RETURN_IF_ERROR(create(work.out.v, work.vectors * out.o_padded * sizeof(uint64_t)));
  TALARIA_RETURN_IF_ERROR(create(work.out.u, work.vectors * out.d_padded * sizeof(uint64_t)));
  TALARIA_RETURN_IF_ERROR(create(work.v_hint, kHintVectors * out.o_padded * sizeof(uint64_t)));
  TALARIA_RETURN_IF_ERROR(create(work.u_hint, kHintVectors * out.d_padded * sizeof(uint64_t)));
  TALARIA_RETURN_IF_ERROR(create(work.sums, kHintVectors * ring::kSecretSize * sizeof(WideSum)));
  TALARIA_RETURN_IF_ERROR(create(work.scratch, kMaxProductVectors * out.d * sizeof(int64_t)));
  const RdseedPolicy policy =
      lock == LockPolicy::kRequire ? RdseedPolicy::kRequire : RdseedPolicy::kUseIfPresent;
  TALARIA_RETURN_IF_ERROR(DrawVectors(policy, work.out.v.Expose<uint64_t>()));
  return DrawVectors(policy, work.v_hint.Expose<uint64_t>());
}

Status FetchScales(CloudLink& link, const model::Matrix& matrix, uint32_t index,
                   std::span<float> out) {
  std::vector<uint8_t> bytes(size_t{matrix.o} * sizeof(float));
  TALARIA_RETURN_IF_ERROR(link.Fetch({StreamKind::kScales, index}, 0, bytes));
  if (Sha256Of(bytes) != matrix.scales) return Refused("digest of scales");
  std::memcpy(out.data(), bytes.data(), bytes.size());
  for (const float scale : out.first(matrix.o)) {
    if (!std::isfinite(scale) || !(scale > 0))
      return Refused("a scale that is not finite and positive");
  }
  return OkStatus();
}

// Worker. `offset` is the first of these columns in the group.
Status TakeWeights(GroupWork& work, std::span<const int8_t> weights, size_t offset) {
  const MaskedGroup& out = work.out;
  work.hash->Update({reinterpret_cast<const uint8_t*>(weights.data()), weights.size()});
  if (const Status status = work.norms.Add(weights, out.d); !status.ok())
    return Refused(status.message());
  const uint64_t* from[kMaxProductVectors];
  uint64_t* to[kMaxProductVectors];
  for (size_t k = 0; k < work.vectors; ++k) {
    from[k] = work.Row(out.v, k, out.o_padded).data() + offset;
    to[k] = work.Row(out.u, k, out.d_padded).data();
  }
  for (size_t k = 0; k < kHintVectors; ++k) {
    from[work.vectors + k] = work.Row(work.v_hint, k, out.o_padded).data() + offset;
    to[work.vectors + k] = work.Row(work.u_hint, k, out.d_padded).data();
  }
  AddWeightProducts(weights, out.d, from, work.vectors + kHintVectors, to,
                    work.scratch.Expose<int64_t>().data());
  return OkStatus();
}

// Worker.
Status CheckDigest(GroupWork& work, const Digest& expected, std::string_view what) {
  if (work.hash->Finish() != expected) return Refused(what);
  work.hash = std::make_unique<Sha256>();
  return OkStatus();
}

Status FetchWeights(CloudLink& link, const model::Matrix& matrix, uint32_t index, size_t member,
                    const std::shared_ptr<GroupWork>& work, const Advance& advance,
                    SetupWorker& worker) {
  const size_t d = work->out.d;
  const size_t step = std::max<size_t>(1, kWeightStep / d);
  for (size_t column = 0; column < matrix.o; column += step) {
    const size_t n = std::min(step, matrix.o - column);
    std::vector<uint8_t>& buffer = work->buffers[work->next_buffer++ % SetupWorker::kBuffers];
    buffer.resize(n * d);
    TALARIA_RETURN_IF_ERROR(link.Fetch({StreamKind::kWeights, index}, column * d, buffer));
    const size_t offset = work->out.member_offsets[member] + column;
    TALARIA_RETURN_IF_ERROR(worker.Post([work, &buffer, offset] {
      return TakeWeights(*work, {reinterpret_cast<const int8_t*>(buffer.data()), buffer.size()},
                         offset);
    }));
    advance(buffer.size());
  }
  return worker.Post([work, expected = matrix.weights] {
    return CheckDigest(*work, expected, "digest of weights");
  });
}

Status FetchHints(CloudLink& link, const model::Matrix& matrix, uint32_t index, size_t member,
                  const std::shared_ptr<GroupWork>& work, const Advance& advance,
                  SetupWorker& worker) {
  const size_t bytes = ring::ModuleMatrixBytes(matrix.o);
  TALARIA_ASSIGN_OR_RETURN(SecretMemory memory,
                           SecretMemory::Create(bytes + ring::kSlack, work->options.lock));
  const MutableBytes hints = memory.Expose();
  work->out.hints[member] = std::move(memory);
  for (size_t offset = 0; offset < bytes; offset += kHintStepBlocks * kBlockBytes) {
    const MutableBytes part =
        hints.subspan(offset, std::min(kHintStepBlocks * kBlockBytes, bytes - offset));
    TALARIA_RETURN_IF_ERROR(link.Fetch({StreamKind::kHints, index}, offset, part));
    TALARIA_RETURN_IF_ERROR(worker.Post(
        [work, part,
         column = work->out.member_offsets[member] + offset / kBlockBytes * kBlockColumns] {
          work->hash->Update(part);
          const uint64_t* x[kHintVectors];
          WideSum* to[kHintVectors];
          for (size_t k = 0; k < kHintVectors; ++k) {
            x[k] = work->Row(work->v_hint, k, work->out.o_padded).data() + column;
            to[k] = work->sums.Expose<WideSum>().data() + k * ring::kSecretSize;
          }
          AddModuleProducts(work->options.isa, part.data(),
                            part.size() / kBlockBytes * kBlockColumns, x, kHintVectors, to);
          return OkStatus();
        }));
    advance(part.size());
  }
  return worker.Post(
      [work, expected = matrix.hints] { return CheckDigest(*work, expected, "digest of hints"); });
}

// Worker, after every digest of the group fitted.
Status CheckHints(GroupWork& work) {
  const MaskedGroup& out = work.out;
  TALARIA_ASSIGN_OR_RETURN(
      const SecretMemory products,
      SecretMemory::Create(kHintVectors * ring::kSecretSize * sizeof(WideSum), work.options.lock));
  const uint64_t* x[kHintVectors];
  WideSum* to[kHintVectors];
  for (size_t k = 0; k < kHintVectors; ++k) {
    x[k] = work.Row(work.u_hint, k, out.d_padded).data();
    to[k] = products.Expose<WideSum>().data() + k * ring::kSecretSize;
  }
  AddModuleProducts(work.options.isa, work.a.Expose().data(), ring::RoundUp(out.d, kBlockColumns),
                    x, kHintVectors, to);
  uint64_t difference = 0;  // no early exit
  const std::span<const WideSum> expected = products.Expose<WideSum>(),
                                 got = work.sums.Expose<WideSum>();
  for (size_t i = 0; i < expected.size(); ++i)
    difference |= ring::Reduce128(expected[i]) ^ ring::Reduce128(got[i]);
  if (difference != 0) return Refused("hints do not belong to the weights");
  Result<Certificate> certificate = Certificate::Compute(work.norms, out.d);
  if (!certificate.ok()) return Refused(certificate.status().message());
  work.out.certificate = *certificate;
  return OkStatus();
}

}  // namespace

Status FetchGroup(CloudLink& link, const SetupOptions& options, const GroupInputs& inputs,
                  const Advance& advance, SetupWorker& worker, MaskedGroup& out) {
  const model::Group& group = *inputs.group;
  out.d = group.d;
  out.d_padded = PaddedInputs(group.d);
  out.o_padded = model::GroupOutputs(group);
  out.scales.assign(out.o_padded, 0.0f);
  out.hints.resize(group.matrices.size());
  for (size_t m = 0; m < group.matrices.size(); ++m) {
    out.member_outputs.push_back(group.matrices[m].o);
    out.member_offsets.push_back(model::ColumnOffset(group, m));
  }
  const auto work =
      std::shared_ptr<GroupWork>(new GroupWork{options,
                                               out,
                                               *inputs.a,
                                               static_cast<size_t>(options.check_vectors),
                                               {},
                                               {},
                                               {},
                                               {},
                                               {},
                                               {},
                                               0,
                                               {}});
  work->hash = std::make_unique<Sha256>();
  TALARIA_RETURN_IF_ERROR(Allocate(*work));
  for (uint32_t m = 0; m < group.matrices.size(); ++m) {
    const model::Matrix& matrix = group.matrices[m];
    const uint32_t index = inputs.first_matrix + m;
    TALARIA_RETURN_IF_ERROR(
        FetchScales(link, matrix, index, std::span(out.scales).subspan(out.member_offsets[m])));
    TALARIA_RETURN_IF_ERROR(FetchWeights(link, matrix, index, m, work, advance, worker));
    // The weights' digest is checked before the first byte of their hints is looked at: tasks run
    // in order.
    TALARIA_RETURN_IF_ERROR(FetchHints(link, matrix, index, m, work, advance, worker));
  }
  return worker.Post([work] { return CheckHints(*work); });
}

}  // namespace talaria::cvm::internal
