#include "talaria/cloud/lab/recorder.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "talaria/base/log.h"
#include "talaria/cvm/certificate.h"
#include "talaria/gemm/product.h"
#include "talaria/ring/modq.h"
#include "talaria/ring/ntt.h"
#include "talaria/ring/public_matrix.h"

namespace talaria::cloud::lab {
namespace {

using talaria::lab::Append;
using talaria::lab::CreateRecordingFile;

constexpr size_t kReadBytes = size_t{4} << 20;

// Delta of each group, as the CVM computes it (cvm/certificate.h): a cloud has all weights.
Result<std::vector<int>> DeltaBits(const model::Store& store) {
  std::vector<int> out;
  uint32_t index = 0;
  std::vector<int8_t> weights;
  for (const model::Group& group : store.manifest().groups) {
    cvm::WeightNorms norms;
    const size_t columns = std::max<size_t>(1, kReadBytes / group.d);
    for (const model::Matrix& matrix : group.matrices) {
      const model::StreamId stream{model::StreamKind::kWeights, index++};
      for (size_t column = 0; column < matrix.o; column += columns) {
        weights.resize(std::min(columns, matrix.o - column) * group.d);
        TALARIA_RETURN_IF_ERROR(store.ReadStream(
            stream, uint64_t{column} * group.d,
            MutableBytes(reinterpret_cast<uint8_t*>(weights.data()), weights.size())));
        TALARIA_RETURN_IF_ERROR(norms.Add(weights, group.d));
      }
    }
    TALARIA_ASSIGN_OR_RETURN(const cvm::Certificate certificate,
                             cvm::Certificate::Compute(norms, group.d));
    out.push_back(certificate.delta_log2);
  }
  return out;
}

// A_d by coefficients, [8 * 256][d] x 6 bytes: row i * 256 + c has coefficient c of each A_ij.
std::vector<uint8_t> LatticeMatrix(const model::Manifest& manifest, uint32_t d) {
  std::vector<uint8_t> values(ring::ModuleMatrixBytes(d));
  ring::ExpandPublicMatrix(ring::PublicMatrixKey(manifest.profile, model::CoreDigest(manifest), d),
                           0, d, values);
  std::vector<uint8_t> out(size_t{ring::kSecretSize} * d * ring::kResidueBytes);
  ring::Polynomial polynomial;
  for (size_t i = 0; i < ring::kRank; ++i) {
    for (size_t j = 0; j < d; ++j) {
      for (size_t slot = 0; slot < ring::kDegree; ++slot)
        polynomial[slot] = ring::LoadResidue(&values[ring::ModuleMatrixOffset(j, slot, i)]);
      ring::InverseNtt(polynomial);
      for (size_t c = 0; c < ring::kDegree; ++c) {
        const size_t row = i * ring::kDegree + c;
        ring::StoreResidue(&out[(row * d + j) * ring::kResidueBytes], polynomial[c]);
      }
    }
  }
  return out;
}

}  // namespace

Recorder::Recorder(const model::Manifest& manifest, talaria::lab::RowFiles rows,
                   talaria::lab::File calls)
    : rows_(std::move(rows)), calls_(std::move(calls)) {
  for (const model::Group& group : manifest.groups) groups_.push_back({.d = group.d});
}

Result<std::shared_ptr<Recorder>> Recorder::Create(const RecorderOptions& options) {
  TALARIA_ASSIGN_OR_RETURN(const model::Store store, model::Store::Open(options.store));
  const std::string folder = options.folder + "/cloud";
  TALARIA_RETURN_IF_ERROR(talaria::lab::MakeRecordingFolder(folder));
  TALARIA_ASSIGN_OR_RETURN(talaria::lab::RowFiles rows,
                           talaria::lab::RowFiles::Create(
                               folder, "residues", store.manifest().groups.size(), options.groups));
  TALARIA_ASSIGN_OR_RETURN(talaria::lab::File calls, CreateRecordingFile(folder + "/calls.jsonl"));
  std::shared_ptr<Recorder> recorder(
      new Recorder(store.manifest(), std::move(rows), std::move(calls)));
  TALARIA_RETURN_IF_ERROR(recorder->WriteDescription(options, store));
  return recorder;
}

Status Recorder::WriteDescription(const RecorderOptions& options, const model::Store& store) {
  const std::string folder = options.folder + "/cloud";
  const model::Manifest& manifest = store.manifest();
  TALARIA_ASSIGN_OR_RETURN(const std::vector<int> delta_bits, DeltaBits(store));
  nlohmann::json groups = nlohmann::json::array();
  for (uint32_t g = 0; g < groups_.size(); ++g) {
    if (!rows_.Keeps(g)) continue;
    nlohmann::json members = nlohmann::json::array();
    for (const model::Matrix& matrix : manifest.groups[g].matrices) members.push_back(matrix.name);
    groups.push_back({{"index", g},
                      {"d", groups_[g].d},
                      {"members", std::move(members)},
                      {"delta_bits", delta_bits[g]}});
  }
  nlohmann::json published;  // null
  if (options.scheme == "published") {
    published = {{"m", nlohmann::json::object()}, {"files", nlohmann::json::object()}};
    for (const Group& group : groups_) {
      if (public_matrices_.contains(group.d)) continue;
      const uint32_t m = options.m.Of(group.d);
      const std::string width = std::to_string(group.d), name = "public-" + width + ".residues";
      std::vector<uint8_t>& matrix = public_matrices_[group.d];
      matrix = talaria::lab::PublishedMatrix(model::CoreDigest(manifest), group.d, m);
      TALARIA_ASSIGN_OR_RETURN(const talaria::lab::File file,
                               CreateRecordingFile(folder + "/" + name));
      TALARIA_RETURN_IF_ERROR(Append(file, matrix));
      published["m"][width] = m;
      published["files"][width] = name;
    }
  }
  nlohmann::json lattice;  // null
  if (options.scheme.starts_with("lattice")) {
    lattice = {{"files", nlohmann::json::object()}};
    for (uint32_t g = 0; g < groups_.size(); ++g) {
      const std::string width = std::to_string(groups_[g].d);
      if (!rows_.Keeps(g) || lattice["files"].contains(width)) continue;
      const std::string name = "lattice-" + width + ".residues";
      TALARIA_ASSIGN_OR_RETURN(const talaria::lab::File file,
                               CreateRecordingFile(folder + "/" + name));
      TALARIA_RETURN_IF_ERROR(Append(file, LatticeMatrix(manifest, groups_[g].d)));
      lattice["files"][width] = name;
    }
  }
  const nlohmann::json description = {{"version", 1},
                                      {"model", ToHex(store.identity())},
                                      {"profile", manifest.profile},
                                      {"scheme", options.scheme},
                                      {"q", ring::kQ},
                                      {"groups", std::move(groups)},
                                      {"published", std::move(published)},
                                      {"lattice", std::move(lattice)}};
  TALARIA_ASSIGN_OR_RETURN(const talaria::lab::File file,
                           CreateRecordingFile(folder + "/recording.json"));
  return Append(file, AsBytes(description.dump(1) + "\n"));
}

void Recorder::OnMultiply(uint64_t connection, const wire::MultiplyHeader& request, Bytes planes) {
  const std::lock_guard lock(mutex_);
  if (!ended_.ok()) return;
  ended_ = Record(connection, request, planes);
  if (!ended_.ok()) LogError("the recording has ended: " + ended_.ToString());
}

// True for the rows of M_pub that the CVM's set-up sends to learn M_pub W: they hide nothing and
// are in a file of their own.
bool Recorder::IsPublic(uint32_t group, uint32_t rows, Bytes residues) {
  Group& g = groups_[group];
  const auto found = public_matrices_.find(g.d);
  if (found == public_matrices_.end()) return false;
  const size_t begin = size_t{g.public_rows} * g.d * ring::kResidueBytes;
  if (found->second.size() - begin < residues.size()) return false;
  if (!std::ranges::equal(Bytes(found->second).subspan(begin, residues.size()), residues))
    return false;
  g.public_rows += rows;
  if (begin + residues.size() == found->second.size()) g.public_rows = 0;
  return true;
}

Status Recorder::Record(uint64_t connection, const wire::MultiplyHeader& request, Bytes planes) {
  if (!rows_.Keeps(request.group)) return OkStatus();
  Group& group = groups_[request.group];
  const size_t width = gemm::PadInputs(group.d);
  residues_.resize(size_t{request.rows} * group.d * ring::kResidueBytes);
  uint8_t* out = residues_.data();
  for (size_t row = 0; row < request.rows; ++row) {
    const uint8_t* const from = planes.data() + row * gemm::kPlanes * width;
    for (size_t j = 0; j < group.d; ++j) {
      for (size_t p = 0; p < gemm::kPlanes; ++p) *out++ = from[p * width + j];
    }
  }
  if (IsPublic(request.group, request.rows, residues_)) return OkStatus();
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const nlohmann::json line = {
      {"call", call_++},
      {"time_us", std::chrono::duration_cast<std::chrono::microseconds>(now).count()},
      {"connection", connection},
      {"group", request.group},
      {"rows", request.rows},
      {"row", group.rows}};
  group.rows += request.rows;
  TALARIA_RETURN_IF_ERROR(Append(calls_, AsBytes(line.dump() + "\n")));
  return rows_.AppendRows(request.group, residues_);
}

Status Recorder::status() const {
  const std::lock_guard lock(mutex_);
  if (!ended_.ok()) return ended_;
  if (std::fflush(calls_.get()) != 0)
    return Status(Code::kIo, "the recording could not be written");
  return rows_.Flush();
}

}  // namespace talaria::cloud::lab
