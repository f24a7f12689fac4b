#include "talaria/gemm/product.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "talaria/base/log.h"
#include "talaria/gemm/product_kernels.h"
#include "talaria/gemm/product_memory.h"
#include "talaria/gemm/product_selftest.h"
#include "talaria/gemm/thread_team.h"

namespace talaria::gemm {
namespace {

static_assert(kInputUnit == 64 && kOutputUnit == kPanelColumns,
              "what the kernels' layouts are made for");
static_assert(kMaxInputs * 255 * 127 < (uint64_t{1} << 31), "sums of six-plane kernels are s32");

constexpr size_t kMaxOutputs = size_t{1} << 32;
constexpr size_t kMaxWeightBytes = size_t{1} << 46;
constexpr size_t kMinGroupRows = 32;
constexpr size_t kPackAloneBytes = size_t{256}
                                   << 10;  // packing less than this is faster than asking for help
constexpr size_t kPackRows = 8;
constexpr size_t kPiecesPerThread = 4;  // so that a disturbed thread leaves work to the others
constexpr size_t kWakeNs = 30'000;  // waking a sleeper costs 5 us here, and 10 to 50 until it runs

constexpr size_t DivideUp(size_t a, size_t b) { return (a + b - 1) / b; }

const Kernel& TableKernel(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAmx) return kAmxKernel;
  if (isa == Isa::kAvx512) return kAvx512Kernel;
  if (isa == Isa::kAvx2) return kAvx2Kernel;
#endif
  return kPortableKernel;
}

}  // namespace

struct PackedWeights::Impl {
  const Kernel* kernel;
  Isa isa;
  size_t d, padded_outputs;
  size_t panel_bytes;
  std::shared_ptr<int8_t> panels;  // [padded_outputs / 32][panel_bytes]
};

PackedWeights::PackedWeights() = default;
PackedWeights::~PackedWeights() = default;
PackedWeights::PackedWeights(PackedWeights&&) noexcept = default;
PackedWeights& PackedWeights::operator=(PackedWeights&&) noexcept = default;
Isa PackedWeights::isa() const { return impl_->isa; }
size_t PackedWeights::d() const { return impl_->d; }
size_t PackedWeights::padded_outputs() const { return impl_->padded_outputs; }

Result<PackedWeights> PackedWeights::Create(Isa isa, size_t d, size_t padded_outputs) {
  return CreateFor(TableKernel(isa), isa, d, padded_outputs);
}

Result<PackedWeights> PackedWeights::CreateFor(const Kernel& kernel, Isa isa, size_t d,
                                               size_t padded_outputs) {
  if (isa > DetectIsa()) {
    return Status(Code::kInvalidArgument, "this processor has no " + std::string(IsaName(isa)));
  }
  if (d == 0 || d > kMaxInputs) {
    return Status(Code::kInvalidArgument,
                  "a matrix of " + std::to_string(d) + " inputs (1 to 65536)");
  }
  if (padded_outputs == 0 || padded_outputs % kOutputUnit != 0 || padded_outputs > kMaxOutputs) {
    return Status(Code::kInvalidArgument, "a matrix of " + std::to_string(padded_outputs) +
                                              " padded outputs (a multiple of 32)");
  }
  const size_t panel_bytes = kernel.panel_bytes(PadInputs(d));
  const size_t panels = padded_outputs / kPanelColumns;
  std::shared_ptr<int8_t> memory;
  if (panels <= kMaxWeightBytes / panel_bytes) memory = AllocateWeights(panels * panel_bytes);
  if (memory == nullptr) {
    return Status(Code::kResourceExhausted, "no memory for weights [" +
                                                std::to_string(padded_outputs) + ", " +
                                                std::to_string(PadInputs(d)) + "]");
  }
  PackedWeights weights;
  weights.impl_ =
      std::make_unique<Impl>(Impl{&kernel, isa, d, padded_outputs, panel_bytes, std::move(memory)});
  // A kernel may keep more than weights in a panel, so even zero columns are packed.
  for (size_t p = 0; p < panels; ++p)
    kernel.pack_panel(nullptr, d, 0, weights.impl_->panels.get() + p * panel_bytes);
  return weights;
}

Status PackedWeights::SetColumns(size_t first, std::span<const int8_t> weights) {
  const size_t d = impl_->d;
  const size_t count = weights.size() / d;
  if (weights.size() % d != 0) return {Code::kInvalidArgument, "weights end inside a column"};
  if (first % kOutputUnit != 0 || first > impl_->padded_outputs ||
      count > impl_->padded_outputs - first) {
    return {Code::kInvalidArgument, "columns " + std::to_string(first) + " + " +
                                        std::to_string(count) + " do not fit " +
                                        std::to_string(impl_->padded_outputs)};
  }
  if (std::ranges::find(weights, int8_t{-128}) != weights.end()) {
    return {Code::kCorrupt, "a weight of -128 (the range is -127..127)"};
  }
  for (size_t done = 0; done < count; done += kPanelColumns) {
    impl_->kernel->pack_panel(
        weights.data() + done * d, d, std::min(kPanelColumns, count - done),
        impl_->panels.get() + (first + done) / kPanelColumns * impl_->panel_bytes);
  }
  return OkStatus();
}

namespace {

struct Shape {
  const Kernel& kernel;
  size_t padded_inputs, row_bytes, panels, panel_bytes;
};

// Calls do_piece(i) for every i < count, on all threads that come.
template <class F>
void ForPieces(ThreadTeam::Impl& team, size_t count, bool wake, F do_piece) {
  if (count <= 1 || team.size() == 1) {
    for (size_t i = 0; i < count; ++i) do_piece(i);
    return;
  }
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) do_piece(i);
  };
  team.Run(work, wake);
}

void PackRows(const Shape& shape, const uint8_t* planes, size_t rows, uint8_t* packed,
              ThreadTeam::Impl& team) {
  const size_t plane_bytes = kPlanes * shape.padded_inputs;
  if (rows * plane_bytes < kPackAloneBytes) {
    shape.kernel.pack_rows(planes, rows, shape.padded_inputs, packed);
    return;
  }
  ForPieces(team, DivideUp(rows, kPackRows), true, [&](size_t piece) {
    const size_t r = piece * kPackRows;
    shape.kernel.pack_rows(planes + r * plane_bytes, std::min(kPackRows, rows - r),
                           shape.padded_inputs, packed + r * shape.row_bytes);
  });
}

// A piece is some panels times all rows, so that weights pass once; where panels are too few for
// the threads, times a group of rows.
void MultiplyChunk(const Shape& shape, const int8_t* panels, const uint8_t* packed, size_t rows,
                   uint8_t* out, size_t out_stride, ThreadTeam::Impl& team) {
  const size_t threads = static_cast<size_t>(team.size());
  const size_t wanted = threads == 1 ? 1 : threads * kPiecesPerThread;
  const size_t groups_wanted =
      std::clamp<size_t>(DivideUp(wanted, shape.panels), 1, DivideUp(rows, kMinGroupRows));
  const size_t group_rows = DivideUp(DivideUp(rows, groups_wanted), 2) * 2;  // tiles are two rows
  const size_t groups = DivideUp(rows, group_rows);
  const size_t run_panels =
      DivideUp(shape.panels, std::min(shape.panels, DivideUp(wanted, groups)));
  const size_t runs = DivideUp(shape.panels, run_panels);
  const size_t bytes = shape.panels * shape.panel_bytes;
  // Roughly, on a fast core: 30 bytes of weights and 36 six-plane products a nanosecond.
  const bool wake = bytes / 30 + bytes * rows / 36 > kWakeNs;
  ForPieces(team, groups * runs, wake, [&](size_t piece) {
    const size_t p = piece % runs * run_panels;
    const size_t r = piece / runs * group_rows;
    shape.kernel.multiply({.panels = panels + p * shape.panel_bytes,
                           .panel_count = std::min(run_panels, shape.panels - p),
                           .padded_inputs = shape.padded_inputs,
                           .packed = packed + r * shape.row_bytes,
                           .rows = std::min(group_rows, rows - r),
                           .out = out + r * out_stride + p * kPanelOutBytes,
                           .out_stride = out_stride});
  });
}

}  // namespace

void Product(const PackedWeights& weights, Bytes planes, size_t rows, MutableBytes out,
             std::vector<uint8_t>& scratch, ThreadTeam& team) {
  const PackedWeights::Impl& impl = weights.impl();
  const size_t padded_inputs = weights.padded_inputs();
  const size_t out_stride = impl.padded_outputs * kPlanes;
  TALARIA_CHECK(planes.size() == rows * kPlanes * padded_inputs);
  TALARIA_CHECK(out.size() == rows * out_stride);
  if (rows == 0) return;
  const Shape shape{*impl.kernel, padded_inputs, impl.kernel->packed_row_bytes(padded_inputs),
                    impl.padded_outputs / kPanelColumns, impl.panel_bytes};
  // Chunks of equal size, so that none is a short and expensive rest.
  const size_t most_rows =
      std::max(shape.kernel.min_chunk_rows, shape.kernel.chunk_bytes / shape.row_bytes);
  const size_t chunks = DivideUp(rows, most_rows);
  const size_t chunk_rows = std::min(rows, DivideUp(DivideUp(rows, chunks), 2) * 2);
  constexpr size_t kAlign = 64;
  if (scratch.size() < chunk_rows * shape.row_bytes + kAlign)
    scratch.resize(chunk_rows * shape.row_bytes + kAlign);
  uint8_t* packed =
      scratch.data() + (kAlign - reinterpret_cast<uintptr_t>(scratch.data()) % kAlign) % kAlign;
  for (size_t r = 0; r < rows; r += chunk_rows) {
    const size_t now = std::min(chunk_rows, rows - r);
    PackRows(shape, planes.data() + r * kPlanes * padded_inputs, now, packed, team.impl());
    MultiplyChunk(shape, impl.panels.get(), packed, now, out.data() + r * out_stride, out_stride,
                  team.impl());
  }
}

Isa SelfTestedIsa(Isa wanted) {
  std::vector<KernelChoice> table;
  for (Isa isa : SupportedIsas()) table.push_back({isa, &TableKernel(isa)});
  return SelfTestedIsa(wanted, table);
}

}  // namespace talaria::gemm
