#include "talaria/cloud/product_service.h"

#include <algorithm>
#include <span>
#include <string>

#include "talaria/base/digest.h"
#include "talaria/base/progress.h"
#include "talaria/gemm/product.h"
#include "talaria/model/manifest.h"
#include "talaria/model/store_layout.h"

namespace talaria::cloud {
namespace {

constexpr uint64_t kResidueBytes = 6;
constexpr size_t kReadBytes = size_t{4} << 20;

// Streams the weights of one matrix into its columns, which start at `first_column`; compares their
// digest.
Status LoadMatrix(const model::Store& store, uint32_t index, const model::Matrix& matrix,
                  uint32_t d, uint32_t first_column, std::vector<int8_t>& buffer,
                  Progress& progress, gemm::DeviceWeights& out) {
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
                                                               std::shared_ptr<gemm::Device> device,
                                                               BatchScheduler::Options options,
                                                               int max_connections_per_cvm) {
  std::unique_ptr<ProductService> service(
      new ProductService(std::move(device), max_connections_per_cvm));
  TALARIA_RETURN_IF_ERROR(service->Load(store));
  std::vector<BatchScheduler::Group> groups;
  for (const Group& group : service->groups_) {
    groups.push_back({group.weights.get(), group.in_row_bytes, group.out_row_bytes,
                      // In tiles of padding, so that a sum of years of work fits 64 bits.
                      uint64_t{group.in_row_bytes / (gemm::kPlanes * gemm::kInputUnit)} *
                          (group.out_row_bytes / (kResidueBytes * gemm::kOutputUnit))});
  }
  service->scheduler_ = std::make_unique<BatchScheduler>(std::move(groups), std::move(options));
  return service;
}

Status ProductService::Connection::Admit(const Digest& cvm_key) {
  TALARIA_CHECK(!cvm_);
  const std::lock_guard lock(service_.mutex_);
  Cvm& cvm = service_.cvms_[cvm_key];
  if (cvm.connections == service_.max_connections_per_cvm_)
    return {Code::kResourceExhausted, "a CVM has enough connections"};
  if (cvm.account == nullptr) cvm.account = std::make_shared<BatchScheduler::Account>();
  ++cvm.connections;
  place_.Join(cvm.account);
  cvm_ = cvm_key;
  return OkStatus();
}

ProductService::Connection::~Connection() {
  if (!cvm_) return;
  const std::lock_guard lock(service_.mutex_);
  const auto cvm = service_.cvms_.find(*cvm_);
  if (--cvm->second.connections == 0) service_.cvms_.erase(cvm);
}

Status ProductService::Load(const model::Store& store) {
  const model::Manifest& manifest = store.manifest();
  uint64_t total = 0;
  for (const model::Group& group : manifest.groups) {
    for (const model::Matrix& matrix : group.matrices) total += uint64_t{matrix.o} * group.d;
  }
  Progress progress("loading weights", total);
  std::vector<int8_t> buffer;
  uint32_t index = 0;  // of the matrix, through all groups
  for (const model::Group& group : manifest.groups) {
    const size_t outputs = model::GroupOutputs(group);  // padded
    TALARIA_ASSIGN_OR_RETURN(auto weights, device_->CreateWeights(group.d, outputs));
    for (size_t member = 0; member < group.matrices.size(); ++member, ++index) {
      const model::Matrix& matrix = group.matrices[member];
      const Status status =
          LoadMatrix(store, index, matrix, group.d, model::ColumnOffset(group, member), buffer,
                     progress, *weights);
      if (!status.ok()) return status.Annotate(matrix.name);
    }
    groups_.push_back(
        {gemm::kPlanes * gemm::PadInputs(group.d), kResidueBytes * outputs, std::move(weights)});
  }
  return OkStatus();
}

Result<Bytes> ProductService::Multiply(Connection& connection, const wire::MultiplyHeader& request,
                                       Bytes planes, uint32_t max_frame_bytes,
                                       const std::atomic<bool>& stopping,
                                       std::vector<uint8_t>& buffer) {
  if (request.group >= groups_.size()) return Status(Code::kInvalidArgument, "no such group");
  const Group& group = groups_[request.group];
  // 2^32 rows of at most 2^19 and, with the manifest's limits, 2^43 bytes: neither product
  // overflows 64 bits where it matters, because the first check bounds the rows by the size of a
  // frame.
  if (request.rows == 0 || request.rows * uint64_t{group.in_row_bytes} != planes.size()) {
    return Status(Code::kInvalidArgument, "the size does not fit the rows");
  }
  const uint64_t reply_bytes = request.rows * uint64_t{group.out_row_bytes};
  const uint64_t overhead = 1 + wire::kCallHeaderBytes;  // the type is part of the length
  if (reply_bytes > std::min(max_frame_bytes, wire::kMaxFrameBytes) - overhead) {
    return Status(Code::kInvalidArgument, "the reply would be over the frame limit");
  }
  if (buffer.size() < reply_bytes) buffer.resize(reply_bytes);
  const MutableBytes out = MutableBytes(buffer).first(reply_bytes);
  const Status status =
      scheduler_->Multiply(connection.place_, request.group, planes, request.rows, out, stopping);
  // kUnavailable is for a peer that went away.
  if (status.code() == Code::kUnavailable) return Status(Code::kInternal, status.message());
  if (!status.ok()) return status;
  return Bytes(out);
}

}  // namespace talaria::cloud
