#include "talaria/cloud/provision.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "talaria/cloud/graph_probe.h"
#include "talaria/cloud/hint_builder.h"
#include "talaria/cloud/provision_plan.h"
#include "talaria/cloud/provision_quantise.h"
#include "talaria/cloud/provision_source.h"
#include "talaria/model/store_writer.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/profile.h"

namespace talaria::cloud {
namespace {

constexpr uint64_t kSliceBytes = uint64_t{32} << 20;  // of rows of the source
constexpr uint64_t kCopyBytes = uint64_t{4} << 20;
constexpr uint64_t kDiskSlack = uint64_t{16}
                                << 20;  // manifest, folder, the file system's own bookkeeping

// Progress and cancellation of one stage.
class Stage {
 public:
  Stage(const ProvisionOptions& options, std::string_view name, uint64_t total)
      : options_(options), name_(name), total_(total) {
    Report();
  }
  // False: stop.
  bool Advance(uint64_t amount) {
    done_ += amount;
    Report();
    return options_.cancel == nullptr || !options_.cancel->load();
  }
  Status Step(uint64_t amount) {
    return Advance(amount) ? OkStatus()
                           : Status(Code::kCancelled, "stopped; nothing was left behind");
  }

 private:
  void Report() {
    if (options_.on_progress) options_.on_progress(name_, done_, total_);
  }
  const ProvisionOptions& options_;
  std::string_view name_;
  uint64_t total_, done_ = 0;
};

// Everything after the plan.
class Provisioner {
 public:
  Provisioner(const ProvisionOptions& options, const SourceModel& source, Plan plan,
              std::unique_ptr<gemm::Device> device, ProvisionSummary& summary)
      : options_(options),
        source_(source),
        plan_(std::move(plan)),
        device_(std::move(device)),
        summary_(summary) {}

  Status Run() {
    auto writer = model::StoreWriter::Create(options_.store, plan_.manifest);
    if (!writer.ok()) return writer.status();
    writer_ = &*writer;
    summary_.removed = writer_->removed();
    TALARIA_RETURN_IF_ERROR(DigestSource());
    TALARIA_RETURN_IF_ERROR(CopySkeleton());
    TALARIA_RETURN_IF_ERROR(QuantiseAll());
    TALARIA_RETURN_IF_ERROR(source_.CheckUnchanged());
    TALARIA_RETURN_IF_ERROR(BuildHints());
    Stage stage(options_, "writing to disk", 1);
    TALARIA_RETURN_IF_ERROR(stage.Step(0));
    TALARIA_ASSIGN_OR_RETURN(summary_.identity, writer_->Finish(plan_.manifest));
    return OkStatus();
  }

 private:
  Status DigestSource() {
    Stage stage(options_, "reading the model", source_.bytes());
    TALARIA_ASSIGN_OR_RETURN(plan_.manifest.source, source_.FileDigest([&](uint64_t bytes) {
      return stage.Advance(bytes);
    }));
    return OkStatus();
  }

  // Every byte outside the holes, in order; padding is zero.
  Status CopySkeleton() {
    Stage stage(options_, "writing the skeleton", writer_->layout().skeleton_data_bytes);
    Sha256 hash;
    const auto put = [&](uint64_t at, Bytes data) -> Status {
      hash.Update(data);
      TALARIA_RETURN_IF_ERROR(writer_->WriteSkeleton(at, data));
      return stage.Step(data.size());
    };
    TALARIA_RETURN_IF_ERROR(put(0, plan_.skeleton_head));
    std::vector<uint8_t> buffer;
    for (size_t i = 0; i < plan_.skeleton.size(); ++i) {
      const SkeletonPart& part = plan_.skeleton[i];
      if (part.hole) continue;
      const model::GgufTensor& tensor = source_.header().tensors[part.source];
      for (uint64_t at = 0; at < tensor.bytes;) {
        buffer.resize(std::min(kCopyBytes, tensor.bytes - at));
        TALARIA_RETURN_IF_ERROR(source_.Read(tensor, at, buffer));
        TALARIA_RETURN_IF_ERROR(put(part.file_offset + at, buffer));
        at += buffer.size();
      }
      const uint64_t end = i + 1 < plan_.skeleton.size() ? plan_.skeleton[i + 1].file_offset
                                                         : plan_.manifest.skeleton_bytes;
      buffer.assign(end - part.file_offset - tensor.bytes, 0);
      TALARIA_RETURN_IF_ERROR(put(part.file_offset + tensor.bytes, buffer));
    }
    plan_.manifest.skeleton = hash.Finish();
    return OkStatus();
  }

  Status QuantiseAll() {
    uint64_t total = 0;
    for (const size_t i : plan_.sources) total += source_.header().tensors[i].bytes;
    Stage stage(options_, "quantising", total);
    size_t index = 0;
    for (model::Group& group : plan_.manifest.groups) {
      for (model::Matrix& matrix : group.matrices) {
        if (Status s = Quantise(index, matrix, stage); !s.ok()) {
          return s.code() == Code::kCancelled ? s : s.Annotate(matrix.name);
        }
        ++index;
      }
    }
    return OkStatus();
  }

  // Slices of rows: read, dequantise and quantise on all threads, write.
  Status Quantise(size_t index, model::Matrix& matrix, Stage& stage) {
    const model::GgufTensor& tensor = source_.header().tensors[plan_.sources[index]];
    const uint64_t d = tensor.shape[0], o = tensor.shape[1], row_bytes = RowBytes(tensor);
    const uint64_t slice = std::clamp<uint64_t>(kSliceBytes / row_bytes, 1, o);
    std::vector<uint8_t> raw, flags;
    std::vector<int8_t> quantised;
    std::vector<RowQuantisation> rows;
    std::vector<float> scales;
    Sha256 weights_hash, scales_hash;
    double error = 0, norm = 0;
    for (uint64_t first = 0; first < o; first += slice) {
      const uint64_t count = std::min(slice, o - first);
      raw.resize(count * row_bytes);
      quantised.resize(count * d);
      rows.assign(count, {});
      flags.assign(count, 0);
      scales.resize(count);
      TALARIA_RETURN_IF_ERROR(source_.Read(tensor, first * row_bytes, raw));
      constexpr uint64_t kRun = 16;  // rows between two looks at the shared counter
      ParallelFor(options_.threads, (count + kRun - 1) / kRun, [&](size_t run) {
        std::vector<float> row(d);
        for (uint64_t r = run * kRun; r < std::min(count, (run + 1) * kRun); ++r) {
          DequantiseRow(tensor.type, Bytes(raw).subspan(r * row_bytes, row_bytes), row);
          flags[r] = QuantiseRow(row, std::span(quantised).subspan(r * d, d), rows[r]);
        }
      });
      for (uint64_t r = 0; r < count; ++r) {
        if (flags[r] == 0)
          return Status(Code::kCorrupt,
                        "row " + std::to_string(first + r) + " has a value that is not finite");
        scales[r] = rows[r].scale;
        error += rows[r].error;
        norm += rows[r].norm;
      }
      const Bytes weight_bytes(reinterpret_cast<const uint8_t*>(quantised.data()),
                               quantised.size());
      const Bytes scale_bytes(reinterpret_cast<const uint8_t*>(scales.data()),
                              count * sizeof(float));
      weights_hash.Update(weight_bytes);
      scales_hash.Update(scale_bytes);
      TALARIA_RETURN_IF_ERROR(writer_->WriteWeights(index, first * d, weight_bytes));
      TALARIA_RETURN_IF_ERROR(writer_->WriteScales(index, first * sizeof(float), scale_bytes));
      TALARIA_RETURN_IF_ERROR(stage.Step(raw.size()));
    }
    matrix.weights = weights_hash.Finish();
    matrix.scales = scales_hash.Finish();
    summary_.matrices[index].relative_error = norm > 0 ? std::sqrt(error / norm) : 0;
    return OkStatus();
  }

  Status BuildHints() {
    // Multiplications, which is what the time goes into.
    uint64_t total = 0;
    for (const MatrixSummary& m : summary_.matrices) total += uint64_t{m.d} * m.o;
    Stage stage(options_, "computing hints", total);
    HintBuilder builder(*device_, plan_.manifest.profile, model::CoreDigest(plan_.manifest),
                        options_.threads);
    size_t index = 0;
    for (model::Group& group : plan_.manifest.groups) {
      for (model::Matrix& matrix : group.matrices) {
        Sha256 hash;
        uint64_t offset = 0;
        const auto read = [&](uint32_t first, std::span<int8_t> out) {
          return writer_->ReadWeights(index, uint64_t{first} * group.d,
                                      {reinterpret_cast<uint8_t*>(out.data()), out.size()});
        };
        const auto sink = [&](Bytes data) -> Status {
          hash.Update(data);
          TALARIA_RETURN_IF_ERROR(writer_->WriteHints(index, offset, data));
          offset += data.size();
          return stage.Step(data.size() / ring::kHintBytesPerColumn * group.d);
        };
        if (Status s = builder.Build(group.d, matrix.o, read, sink); !s.ok()) {
          return s.code() == Code::kCancelled ? s : s.Annotate(matrix.name);
        }
        matrix.hints = hash.Finish();
        ++index;
      }
    }
    return OkStatus();
  }

  const ProvisionOptions& options_;
  const SourceModel& source_;
  Plan plan_;
  std::unique_ptr<gemm::Device> device_;
  ProvisionSummary& summary_;
  model::StoreWriter* writer_ = nullptr;
};

std::string Megabytes(uint64_t bytes) {
  return std::to_string((bytes + 999'999) / 1'000'000) + " MB";
}

Status FillSizes(const SourceModel& source, const Plan& plan, const std::string& store,
                 ProvisionSummary& summary) {
  const model::Manifest& manifest = plan.manifest;
  const model::StoreLayout layout = model::LayoutOf(manifest);
  summary.model_name = manifest.model_name;
  summary.kept = plan.kept;
  size_t index = 0;
  for (const model::MatrixRef& ref : model::AllMatrices(manifest)) {
    const model::GgufTensor& tensor = source.header().tensors[plan.sources[index++]];
    MatrixSummary m;
    m.name = ref.matrix->name;
    m.role = ref.matrix->role;
    m.d = ref.group->d;
    m.o = ref.matrix->o;
    m.group = ref.group_index;
    m.source_type = model::FindGgufType(tensor.type)->name;
    summary.matrices.push_back(std::move(m));
  }
  for (const model::Group& group : manifest.groups) {
    summary.cvm_pool_row_bytes +=
        (ring::RoundUp(group.d, ring::kPanelColumns) + model::GroupOutputs(group)) *
        ring::kResidueBytes;
  }
  summary.weights_bytes = layout.weights_bytes;
  summary.scales_bytes = layout.scales_bytes;
  summary.hints_bytes = layout.hints_bytes;
  summary.cvm_hints_bytes = layout.hints_bytes;
  summary.skeleton_bytes = manifest.skeleton_bytes;
  summary.skeleton_data_bytes = layout.skeleton_data_bytes;
  summary.disk_needed = layout.weights_bytes + layout.scales_bytes + layout.hints_bytes +
                        layout.skeleton_data_bytes + kDiskSlack;
  struct statvfs disk {};
  if (statvfs(model::StoreParent(store).c_str(), &disk) != 0)
    return Status(Code::kIo, model::StoreParent(store) + ": cannot ask for its free space");
  summary.disk_free = uint64_t{disk.f_bavail} * disk.f_frsize;
  return OkStatus();
}

}  // namespace

Result<ProvisionSummary> Provision(const ProvisionOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  if (options.threads < 1) return Status(Code::kInvalidArgument, "threads must be at least 1");
  if (auto profile = ring::FindProfile(options.profile); !profile.ok()) return profile.status();
  TALARIA_RETURN_IF_ERROR(model::CheckStoreTarget(options.store));
  TALARIA_ASSIGN_OR_RETURN(const SourceModel source, SourceModel::Open(options.gguf));
  Stage probing(options, "reading the graph", 1);
  TALARIA_ASSIGN_OR_RETURN(
      const GraphUses uses,
      ProbeGraph({options.gguf, options.llama_backend_dir, options.threads, options.cancel}));
  TALARIA_RETURN_IF_ERROR(probing.Step(1));
  TALARIA_ASSIGN_OR_RETURN(Plan plan,
                           MakePlan(source.header(), source.head(), uses,
                                    {options.keep_local, options.min_dimension, options.profile}));

  ProvisionSummary summary;
  TALARIA_RETURN_IF_ERROR(FillSizes(source, plan, options.store, summary));
  if (!options.dry_run) {
    if (summary.disk_free < summary.disk_needed) {
      return Status(Code::kResourceExhausted, "the store needs " + Megabytes(summary.disk_needed) +
                                                  " and " + model::StoreParent(options.store) +
                                                  " has " + Megabytes(summary.disk_free) + " free");
    }
    gemm::DeviceSpec spec = options.device;
    spec.threads = options.threads;
    TALARIA_ASSIGN_OR_RETURN(auto device, gemm::CreateDevice(spec));
    TALARIA_RETURN_IF_ERROR(
        Provisioner(options, source, std::move(plan), std::move(device), summary).Run());
  }
  summary.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return summary;
}

}  // namespace talaria::cloud
