#include <omp.h>

#include <cstring>
#include <dnnl.hpp>
#include <memory>
#include <random>
#include <vector>

#include "bench/library_product.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::bench {
namespace {

using dnnl::memory;
using Dims = memory::dims;

struct Shape {
  size_t d, o, rows;
};

struct Work {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  memory in, out;
  std::vector<memory> weights;
  dnnl::matmul product;
  size_t turn = 0;

  void Run() {
    product.execute(stream, {{DNNL_ARG_SRC, in},
                             {DNNL_ARG_WEIGHTS, weights[++turn % weights.size()]},
                             {DNNL_ARG_DST, out}});
    stream.wait();
  }
};

dnnl::matmul::primitive_desc Describe(const dnnl::engine& engine, const Shape& shape) {
  const auto d = static_cast<memory::dim>(shape.d), o = static_cast<memory::dim>(shape.o),
             rows = static_cast<memory::dim>(shape.rows);
  using Type = memory::data_type;
  using Tag = memory::format_tag;
  const memory::desc in(Dims{rows, d}, Type::u8, Tag::ab), weights(Dims{d, o}, Type::s8, Tag::any),
      out(Dims{rows, o}, Type::s32, Tag::ab);
#if DNNL_VERSION_MAJOR >= 3
  return {engine, in, weights, out};
#else
  return {dnnl::matmul::desc(in, weights, out), engine};
#endif
}

// The first and the last row. Debian's 2.6.3 returns wrong sums, silently, on processors without
// VNNI.
bool Agrees(const Work& work, const Shape& shape, const std::vector<uint8_t>& rows,
            const std::vector<int8_t>& weights) {
  const auto* const out = static_cast<const int32_t*>(work.out.get_data_handle());
  for (const size_t row : {size_t{0}, shape.rows - 1}) {
    for (size_t column = 0; column < shape.o; ++column) {
      int32_t sum = 0;
      for (size_t k = 0; k < shape.d; ++k)
        sum += int32_t{rows[row * shape.d + k]} * weights[column * shape.d + k];
      if (out[row * shape.o + column] != sum) return false;
    }
  }
  return true;
}

Result<LibraryProduct> Prepare(const Shape& shape, size_t cold_bytes) {
  omp_set_num_threads(1);
  const auto work = std::make_shared<Work>();
  const auto description = Describe(work->engine, shape);
  work->product = dnnl::matmul(description);
  std::vector<uint8_t> rows(shape.rows * shape.d);
  std::mt19937_64 random(1);
  for (uint8_t& x : rows) x = static_cast<uint8_t>(random());
  std::vector<int8_t> weights = gemm::RandomWeights(shape.o, shape.d, 2);  // [o][d]
  work->in = memory(description.src_desc(), work->engine);
  std::memcpy(work->in.get_data_handle(), rows.data(), rows.size());
  work->out = memory(description.dst_desc(), work->engine);
  memory plain({Dims{static_cast<memory::dim>(shape.d), static_cast<memory::dim>(shape.o)},
                memory::data_type::s8, memory::format_tag::ba},
               work->engine, weights.data());
  for (size_t i = 0; i < cold_bytes / weights.size() + 2; ++i) {
    memory packed(description.weights_desc(), work->engine);
    dnnl::reorder(plain, packed).execute(work->stream, plain, packed);
    work->stream.wait();
    work->weights.push_back(std::move(packed));
  }
  work->Run();
  if (!Agrees(*work, shape, rows, weights))
    return Status(Code::kInternal, "oneDNN's sums are wrong on this processor");
  const dnnl_version_t* const v = dnnl_version();
  return LibraryProduct{[work] { work->Run(); },
                        "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) +
                            "." + std::to_string(v->patch) + ", " + description.impl_info_str()};
}

}  // namespace

Result<LibraryProduct> PrepareLibraryProduct(size_t d, size_t o, size_t rows, size_t cold_bytes) {
  try {
    return Prepare({d, o, rows}, cold_bytes);
  } catch (const dnnl::error& error) {
    return Status(Code::kUnavailable, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace talaria::bench
