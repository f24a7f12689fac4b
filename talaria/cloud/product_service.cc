#include "talaria/cloud/product_service.h"

#include <algorithm>
#include <mutex>
#include <span>
#include <string>

#include "talaria/base/digest.h"
#include "talaria/base/progress.h"
#include "talaria/model/manifest.h"
#include "talaria/model/store_layout.h"

namespace talaria::cloud {
namespace {

constexpr uint64_t kResidueBytes = 6;
constexpr size_t kReadBytes = size_t{4} << 20;

// Rows per turn: about 2^31 products of weights (some 50 ms on two cores), so that a long prompt of
// one connection delays a token of another by one block only. From 16 rows on a block is bound by
// arithmetic, not by reading the weights again.
size_t BlockRows(const gemm::PackedWeights& weights) {
  constexpr uint64_t kBlockProducts = uint64_t{1} << 31;
  const uint64_t rows =
      kBlockProducts / (uint64_t{weights.padded_inputs()} * weights.padded_outputs());
  return static_cast<size_t>(std::clamp<uint64_t>(rows / 16 * 16, 16, 512));
}

// Streams the weights of one matrix into its columns, which start at `first_column`; compares their
// digest.
Status LoadMatrix(const model::Store& store, uint32_t index, const model::Matrix& matrix,
                  uint32_t d, uint32_t first_column, std::vector<int8_t>& buffer,
                  Progress& progress, gemm::PackedWeights& out) {
  const model::StreamId stream{model::StreamKind::kWeights, index};
  const size_t columns =
      std::max(gemm::kOutputUnit, kReadBytes / d / gemm::kOutputUnit * gemm::kOutputUnit);
  Sha256 digest;
  for (size_t column = 0; column < matrix.o;) {
    const size_t n = std::min<size_t>(columns, matrix.o - column);
    if (buffer.size() < n * d) buffer.resize(n * d);
    const std::span<int8_t> weights = std::span(buffer).first(n * d);
    const MutableBytes bytes(reinterpret_cast<uint8_t*>(weights.data()), weights.size());
    TALARIA_RETURN_IF_ERROR(store.ReadStream(stream, uint64_t{column} * d, bytes));
    digest.Update(bytes);
    TALARIA_RETURN_IF_ERROR(out.SetColumns(first_column + column, weights));
    progress.Advance(bytes.size(), matrix.name);
    column += n;
  }
  if (digest.Finish() != matrix.weights)
    return Status(Code::kCorrupt, std::string("its weights in ") + model::kWeightsFile +
                                      " differ from the manifest's digest");
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<ProductService>> ProductService::Create(const model::Store& store,
                                                               int threads, Isa isa) {
  std::unique_ptr<ProductService> service(new ProductService(threads));
  TALARIA_RETURN_IF_ERROR(service->Load(store, isa));
  return service;
}

Status ProductService::Load(const model::Store& store, Isa isa) {
  const model::Manifest& manifest = store.manifest();
  uint64_t total = 0;
  for (const model::Group& group : manifest.groups) {
    for (const model::Matrix& matrix : group.matrices) total += uint64_t{matrix.o} * group.d;
  }
  Progress progress("loading weights", total);
  std::vector<int8_t> buffer;
  uint32_t index = 0;  // of the matrix, through all groups
  for (const model::Group& group : manifest.groups) {
    TALARIA_ASSIGN_OR_RETURN(auto weights,
                             gemm::PackedWeights::Create(isa, group.d, model::GroupOutputs(group)));
    for (size_t member = 0; member < group.matrices.size(); ++member, ++index) {
      const model::Matrix& matrix = group.matrices[member];
      const Status status =
          LoadMatrix(store, index, matrix, group.d, model::ColumnOffset(group, member), buffer,
                     progress, weights);
      if (!status.ok()) return status.Annotate(matrix.name);
    }
    groups_.push_back(std::move(weights));
  }
  return OkStatus();
}

Result<Bytes> ProductService::Multiply(const wire::MultiplyHeader& request, Bytes planes,
                                       uint32_t max_frame_bytes, const std::atomic<bool>& stopping,
                                       std::vector<uint8_t>& buffer) {
  if (request.group >= groups_.size()) return Status(Code::kInvalidArgument, "no such group");
  const gemm::PackedWeights& weights = groups_[request.group];
  const uint64_t in_row = gemm::kPlanes * uint64_t{weights.padded_inputs()};
  const uint64_t out_row = kResidueBytes * weights.padded_outputs();
  // 2^32 rows of at most 2^19 and, with the manifest's limits, 2^43 bytes: neither product
  // overflows 64 bits where it matters, because the first check bounds the rows by the size of a
  // frame.
  if (request.rows == 0 || request.rows * in_row != planes.size()) {
    return Status(Code::kInvalidArgument, "the size does not fit the rows");
  }
  const uint64_t reply_bytes = request.rows * out_row;
  const uint64_t overhead = 1 + wire::kCallHeaderBytes;  // the type is part of the length
  if (reply_bytes > std::min(max_frame_bytes, wire::kMaxFrameBytes) - overhead) {
    return Status(Code::kInvalidArgument, "the reply would be over the frame limit");
  }
  if (buffer.size() < reply_bytes) buffer.resize(reply_bytes);
  const MutableBytes out = MutableBytes(buffer).first(reply_bytes);
  const size_t block = BlockRows(weights);
  for (size_t row = 0; row < request.rows; row += block) {
    const size_t rows = std::min(block, request.rows - row);
    const std::lock_guard lock(turn_);
    if (stopping.load(std::memory_order_relaxed)) return Status(Code::kCancelled, "stopping");
    gemm::Product(weights, planes.subspan(row * in_row, rows * in_row), rows,
                  out.subspan(row * out_row, rows * out_row), scratch_, team_);
  }
  return Bytes(out);
}

}  // namespace talaria::cloud
