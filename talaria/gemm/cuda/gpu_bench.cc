// talaria-gpu-bench: what the GPU's products cost, on the shapes of an 8B and a 70B model, beside
// cuBLAS's bf16 product of the same shape in the same run, and which of the project's goals for a
// GPU that meets. Every shape is compared with the oracle before it is timed. Weights come from
// memory: calls rotate over more of them than the GPU's cache holds. scripts/test-gpu runs it.
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/gemm/cuda/library.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm {
namespace {

constexpr size_t kColdBytes = size_t{256} << 20;  // more than the second cache of any GPU
constexpr uint32_t kRowCounts[] = {1, 4, 16, 64, 256, 1024};
// The goals: products of so many rows take no longer than bf16's, of many rows at most so many
// times as long, and hints of an 8B model so many seconds.
constexpr uint32_t kDecodeRows = 16, kManyRows = 256;
constexpr double kManyRowsRatio = 3, kHintSeconds = 60;
constexpr std::chrono::milliseconds kWarm{TALARIA_CUDA_WARM_MS};
constexpr uint32_t kHintRows = 2048, kHintColumns = 2048;  // of a slice of hints (hint_builder.cc)

struct Shape {
  const char* name;
  uint32_t d, outputs, per_token;
};
constexpr Shape k8b[] = {{"8B q,k,v", 4096, 6144, 32},
                         {"8B o", 4096, 4096, 32},
                         {"8B gate,up", 4096, 28672, 32},
                         {"8B down", 14336, 4096, 32},
                         {"8B head", 4096, 128256, 1}};
constexpr Shape k70b[] = {{"70B q,k,v", 8192, 10240, 80},
                          {"70B o", 8192, 8192, 80},
                          {"70B gate,up", 8192, 57344, 80},
                          {"70B down", 28672, 8192, 80},
                          {"70B head", 8192, 128256, 1}};
constexpr Shape kTiny[] = {{"tiny", 64, 128, 1}};  // to try this program with

[[noreturn]] void Die(Code code, const std::string& text) {
  std::fprintf(stderr, "talaria-gpu-bench: %s\n", text.c_str());
  std::exit(ExitCode(code));
}

template <class F>
bool Find(void* library, const char* name, F& function) {
  function = library == nullptr ? nullptr : reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}
// Numbers of bf16 between 2^-4 and 1, of either sign: a GPU draws less power for constants, and
// runs a tenth faster.
bool FillRandom(char* to, size_t bytes) {
  static const std::vector<uint16_t> values = [] {
    std::vector<uint16_t> out(size_t{8} << 20);
    uint64_t state = 1;
    for (uint16_t& value : out) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const auto bits = static_cast<uint32_t>(state >> 40);
      value = static_cast<uint16_t>((bits & 0x807f) | (123 + (bits >> 16 & 3)) << 7);
    }
    return out;
  }();
  const size_t first = values.size() * 2;
  if (cudaMemcpy(to, values.data(), std::min(bytes, first), cudaMemcpyHostToDevice) != cudaSuccess)
    return false;
  for (size_t at = first; at < bytes; at += first) {
    if (cudaMemcpy(to + at, to, std::min(bytes - at, first), cudaMemcpyDeviceToDevice) !=
        cudaSuccess)
      return false;
  }
  return true;
}

// cuBLAS, if this machine has one.
class Cublas {
 public:
  // Of the GPU that this thread has chosen: a handle belongs to one.
  Cublas() {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
      void* const so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (so == nullptr && why_.empty()) why_ = dlerror();
      if (Find(so, "cublasCreate_v2", create_) && Find(so, "cublasGemmEx", gemm_) &&
          create_(&handle_) == CUBLAS_STATUS_SUCCESS)
        return;
      if (so != nullptr) why_ = std::string(name) + " does not start";
    }
    handle_ = nullptr;
  }
  bool there() const { return handle_ != nullptr; }
  const std::string& why_not() const { return why_; }

  // Microseconds of Y[outputs, rows] = W[outputs, d] X[d, rows] in bf16 with f32 sums; negative:
  // it failed.
  double Measure(const Shape& s, uint32_t rows, int repetitions) {
    const size_t weight_bytes = size_t{s.d} * s.outputs * 2;
    const size_t copies = kColdBytes / weight_bytes + 2;
    char *w = nullptr, *x = nullptr, *y = nullptr;
    cudaEvent_t start = nullptr, stop = nullptr;
    bool ok = cudaMalloc(&w, copies * weight_bytes) == cudaSuccess &&
              cudaMalloc(&x, size_t{s.d} * rows * 2) == cudaSuccess &&
              cudaMalloc(&y, size_t{s.outputs} * rows * 2) == cudaSuccess &&
              FillRandom(w, copies * weight_bytes) && FillRandom(x, size_t{s.d} * rows * 2) &&
              cudaEventCreate(&start) == cudaSuccess && cudaEventCreate(&stop) == cudaSuccess;
    const float one = 1, zero = 0;
    const int m = static_cast<int>(s.outputs), n = static_cast<int>(rows),
              k = static_cast<int>(s.d);
    size_t turn = 0;
    const auto multiply = [&] {
      const char* from = w + turn++ % copies * weight_bytes;
      return gemm_(handle_, CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &one, from, CUDA_R_16BF, k, x,
                   CUDA_R_16BF, k, &zero, y, CUDA_R_16BF, m, CUBLAS_COMPUTE_32F,
                   CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS;
    };
    // As talaria_cuda_measure does: until the clocks are up, and then a few without a gap.
    const auto warm = std::chrono::steady_clock::now() + kWarm;
    do {
      for (int i = 0; i < repetitions / 4 + 1 && ok; ++i) ok = multiply();
      ok = ok && cudaDeviceSynchronize() == cudaSuccess;
    } while (ok && std::chrono::steady_clock::now() < warm);
    for (int i = -3; i < repetitions && ok; ++i) {
      if (i == 0) ok = cudaEventRecord(start) == cudaSuccess;
      ok = ok && multiply();
    }
    float milliseconds = -1;
    ok = ok && cudaEventRecord(stop) == cudaSuccess && cudaEventSynchronize(stop) == cudaSuccess &&
         cudaEventElapsedTime(&milliseconds, start, stop) == cudaSuccess;
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    cudaFree(w);
    cudaFree(x);
    cudaFree(y);
    if (const cudaError_t e = cudaGetLastError(); !ok)
      std::fprintf(stderr, "no bf16 figure of %s, %u rows: %s\n", s.name, rows,
                   e == cudaSuccess ? "cuBLAS refused" : cudaGetErrorString(e));
    return ok ? 1e3 * static_cast<double>(milliseconds) / repetitions : -1;
  }

 private:
  std::string why_;
  decltype(&cublasCreate_v2) create_ = nullptr;
  // The C function; the header has C++ overloads of it.
  cublasStatus_t (*gemm_)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                          const void*, const void*, cudaDataType, int, const void*, cudaDataType,
                          int, const void*, void*, cudaDataType, int, cublasComputeType_t,
                          cublasGemmAlgo_t) = nullptr;
  cublasHandle_t handle_ = nullptr;
};

// Bytes a microsecond that the GPU reads at a copy within its memory, reads and writes together;
// 0: it failed.
double MeasureBandwidth(int ordinal) {
  constexpr size_t kBytes = size_t{1} << 30;
  constexpr int kCopies = 10;
  char *from = nullptr, *to = nullptr;
  cudaEvent_t start = nullptr, stop = nullptr;
  bool ok = cudaSetDevice(ordinal) == cudaSuccess && cudaMalloc(&from, kBytes) == cudaSuccess &&
            cudaMalloc(&to, kBytes) == cudaSuccess && cudaEventCreate(&start) == cudaSuccess &&
            cudaEventCreate(&stop) == cudaSuccess;
  for (int i = -2; i < kCopies && ok; ++i) {
    if (i == 0) ok = cudaEventRecord(start) == cudaSuccess;
    ok = ok && cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice) == cudaSuccess;
  }
  float milliseconds = -1;
  ok = ok && cudaEventRecord(stop) == cudaSuccess && cudaEventSynchronize(stop) == cudaSuccess &&
       cudaEventElapsedTime(&milliseconds, start, stop) == cudaSuccess;
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  cudaFree(from);
  cudaFree(to);
  cudaGetLastError();
  return ok ? 2.0 * kCopies * kBytes / (1e3 * static_cast<double>(milliseconds)) : 0;
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f", value);
  return text;
}

class Bench {
 public:
  // Without `goals` no figure says whether one is met.
  Bench(const cuda::Library& library, int ordinal, bool goals)
      : library_(library), ordinal_(ordinal), goals_(goals) {
    Check(library_.create(ordinal, &gpu_, &error_));
    talaria_cuda_info info{};
    Check(library_.describe(gpu_, &info, &error_));
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    std::printf(
        "machine: %s, GPU %d: %s, compute capability %d.%d, %d multiprocessors, %.1f GiB "
        "(%.1f free), driver for CUDA %d.%d, built with %d.%d\n",
        host, ordinal, info.name, info.capability / 10, info.capability % 10, info.multiprocessors,
        static_cast<double>(info.memory_bytes) / (1 << 30),
        static_cast<double>(info.free_bytes) / (1 << 30), info.driver / 1000,
        info.driver % 1000 / 10, info.runtime / 1000, info.runtime % 1000 / 10);
    // This program's own CUDA: cuBLAS has the library's GPU in common with it, and no more.
    std::string why = "CUDA does not start";
    if (cudaSetDevice(ordinal) == cudaSuccess) {
      cublas_ = std::make_unique<Cublas>();
      why = cublas_->why_not();
      if (!cublas_->there()) cublas_.reset();
    }
    std::printf("cuBLAS: %s\n",
                cublas_ != nullptr ? "found" : ("none, so no bf16 figures: " + why).c_str());
  }

  void Products(const std::string& model, std::span<const Shape> shapes) {
    double weights_read = 0;  // in a pass over the model
    for (const Shape& s : shapes)
      weights_read += static_cast<double>(s.d) * s.outputs * s.per_token;
    // About what bf16 takes at best, whoever wrote it.
    const double bandwidth = MeasureBandwidth(ordinal_);
    const double reading_us = bandwidth > 0 ? 2 * weights_read / bandwidth : -1;
    if (bandwidth > 0) {
      std::printf(
          "\nmemory: %.0f GB/s at a copy; to read the weights of %s as bf16 at that: %.2f ms\n",
          bandwidth * 1e-3, model.c_str(), reading_us * 1e-3);
    } else {
      std::printf("\nmemory: its bandwidth was not measured\n");
    }
    std::printf("%-12s %13s %5s | %10s %8s %8s | %10s %6s | %10s\n", "shape", "d x outputs", "rows",
                "kernel us", "GB/s", "int8TOPS", "bf16 us", "ratio", "call us");
    double token_us[std::size(kRowCounts)] = {}, bf16_us[std::size(kRowCounts)] = {};
    for (const Shape& s : shapes) {
      const auto weights = Resident(s);
      for (size_t i = 0; i < std::size(kRowCounts); ++i) {
        const uint32_t rows = kRowCounts[i];
        const uint32_t repetitions = rows >= 256 ? 20 : 100;
        double us = 0;
        Check(library_.measure(weights.data(), weights.size(), rows, repetitions, &us, &error_));
        const double bf16 =
            cublas_ != nullptr ? cublas_->Measure(s, rows, static_cast<int>(repetitions)) : -1;
        const double weight = static_cast<double>(s.d) * s.outputs;
        std::printf("%-12s %6u x %6u %4u | %10.1f %8.0f %8.1f |", s.name, s.d, s.outputs, rows, us,
                    weight / us * 1e-3, 12 * weight * rows / us * 1e-6);
        if (bf16 > 0) {
          std::printf(" %10.1f %6.2f |", bf16, us / bf16);
        } else {
          std::printf(" %10s %6s |", "-", "-");
        }
        std::printf(" %10.1f\n", CallUs(s, weights, rows));
        token_us[i] += us * s.per_token;
        bf16_us[i] = bf16 < 0 || bf16_us[i] < 0 ? -1 : bf16_us[i] + bf16 * s.per_token;
      }
      for (talaria_cuda_weights* w : weights) library_.remove_weights(w);
    }
    for (size_t i = 0; i < std::size(kRowCounts); ++i) {
      std::printf("all products of the model, %u rows: %.2f ms", kRowCounts[i], token_us[i] * 1e-3);
      if (bf16_us[i] > 0) std::printf(" (bf16: %.2f ms)", bf16_us[i] * 1e-3);
      std::printf("\n");
    }
    for (size_t i = 0; i < std::size(kRowCounts); ++i) {
      const uint32_t rows = kRowCounts[i];
      if (rows > kDecodeRows && rows != kManyRows) continue;
      const double most = rows == kManyRows ? kManyRowsRatio : 1;
      const std::string what = model + ", " + std::to_string(rows) + " rows: ",
                        goal = most == 1 ? "no slower than bf16" : "at most 3 times bf16's time";
      if (bf16_us[i] > 0) {
        Goal(token_us[i] <= most * bf16_us[i] ? "met" : "MISSED",
             what + goal + "; it is " + Number(token_us[i] / bf16_us[i]) + " of it");
      } else {
        Goal("unknown", what + goal + "; cuBLAS was not measured" +
                            (reading_us > 0 ? ". It is " + Number(token_us[i] / reading_us) +
                                                  " of the time to read bf16 weights"
                                            : ""));
      }
    }
  }

  // The products of the hints of one layer and of the head, host to host, slice by slice, as
  // provisioning makes them; without the public matrix and the disk.
  void Hints(const std::string& model, std::span<const Shape> shapes) {
    std::printf("\nhints of the model %s (%u rows of the public matrix, slices of %u columns)\n",
                model.c_str(), kHintRows, kHintColumns);
    double total = 0;
    for (const Shape& s : shapes) {
      const auto planes = DigitPlanes(RandomResidues(kHintRows, s.d, 1), s.d);
      const auto columns = RandomWeights(kHintColumns, s.d, 2);
      std::vector<uint8_t> out(size_t{kHintRows} * kHintColumns * 6);
      const uint32_t slices = (s.outputs + kHintColumns - 1) / kHintColumns;
      const uint32_t timed = std::min(slices, 8u);
      const auto start = std::chrono::steady_clock::now();
      for (uint32_t i = 0; i < timed; ++i) {
        talaria_cuda_weights* w = nullptr;
        Check(library_.add_weights(gpu_, s.d, kHintColumns, &w, &error_));
        Check(library_.set_columns(w, 0, kHintColumns, columns.data(), &error_));
        Multiply(s.d, kHintColumns, w, planes, kHintRows, out);
        library_.remove_weights(w);
      }
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / timed *
          slices * s.per_token;
      std::printf("%-12s %6u x %6u: %8.2f s for %u of them (from %u slices)\n", s.name, s.d,
                  s.outputs, seconds, s.per_token, timed);
      total += seconds;
    }
    std::printf("all hints of the model: %.1f s\n", total);
    Goal(total <= kHintSeconds ? "met" : "MISSED",
         model + ": the hints in at most a minute; they take " + Number(total) + " s");
  }

 private:
  void Goal(const char* verdict, const std::string& what) const {
    if (goals_) std::printf("GOAL %s: %s\n", verdict, what.c_str());
  }
  void Check(int code) {
    if (code != TALARIA_CUDA_OK) Die(Code::kUnavailable, error_.text);
  }

  // Copies of a matrix, so that none stays in the cache; the first one is compared with the oracle.
  std::vector<talaria_cuda_weights*> Resident(const Shape& s) {
    constexpr uint32_t kChecked = 64, kStep = 8192;
    const size_t copies = kColdBytes / (size_t{s.d} * s.outputs) + 2;
    std::vector<talaria_cuda_weights*> out(copies);
    const auto source = RandomWeights(kStep, s.d, 3);
    for (talaria_cuda_weights*& w : out) {
      Check(library_.add_weights(gpu_, s.d, static_cast<uint32_t>(PadOutputs(s.outputs)), &w,
                                 &error_));
      for (uint32_t first = 0; first < s.outputs; first += kStep)
        Check(library_.set_columns(w, first, std::min(kStep, s.outputs - first), source.data(),
                                   &error_));
    }
    for (uint32_t rows : kRowCounts) {
      if (rows > library_.max_rows(out[0])) break;
      const auto planes = DigitPlanes(RandomResidues(rows, s.d, 4), s.d);
      const size_t out_row = PadOutputs(s.outputs) * 6, in_row = kPlanes * PadInputs(s.d);
      std::vector<uint8_t> got(rows * out_row), expected(kChecked * 6);
      Multiply(s.d, s.outputs, out[0], planes, rows, got);
      for (uint32_t row : {0u, rows - 1}) {
        ReferenceProduct(std::span(source).first(size_t{kChecked} * s.d), s.d,
                         Bytes(planes).subspan(row * in_row, in_row), 1, expected);
        // The first columns, and those a step later, which are the same.
        for (uint32_t first = 0; first + kChecked <= s.outputs; first += kStep) {
          if (std::memcmp(got.data() + row * out_row + first * 6, expected.data(),
                          expected.size()) != 0)
            Die(Code::kUnsupported,
                std::string(s.name) + ": wrong residues with " + std::to_string(rows) + " rows");
        }
      }
    }
    return out;
  }

  void Multiply(uint32_t d, uint32_t outputs, talaria_cuda_weights* w, Bytes planes, size_t rows,
                MutableBytes out) {
    const size_t in_row = kPlanes * PadInputs(d), out_row = PadOutputs(outputs) * 6;
    for (size_t row = 0; row < rows;) {
      const size_t now = std::min(library_.max_rows(w), rows - row);
      const talaria_cuda_rows block{planes.data() + row * in_row, now, out.data() + row * out_row};
      Check(library_.multiply(w, &block, 1, &error_));
      row += now;
    }
  }

  // From the host's memory to the host's memory, the median of several. Weights come from memory.
  double CallUs(const Shape& s, std::span<talaria_cuda_weights* const> weights, uint32_t rows) {
    const std::vector<uint8_t> planes(size_t{rows} * kPlanes * PadInputs(s.d), 0x5a);
    std::vector<uint8_t> out(size_t{rows} * PadOutputs(s.outputs) * 6);
    std::vector<double> us;
    for (size_t i = 0; i < 11; ++i) {
      const auto start = std::chrono::steady_clock::now();
      Multiply(s.d, s.outputs, weights[i % weights.size()], planes, rows, out);
      us.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
              .count());
    }
    std::nth_element(us.begin(), us.begin() + 5, us.end());
    return us[5];
  }

  const cuda::Library library_;
  const int ordinal_;
  const bool goals_;
  std::unique_ptr<Cublas> cublas_;  // none: no bf16 figures
  talaria_cuda* gpu_ = nullptr;
  talaria_cuda_error error_{};
};

constexpr const char* kHelp =
    "usage: talaria-gpu-bench LIBRARY [GPU] [8b|70b|hints|machine|tiny ...]\n"
    "       talaria-gpu-bench LIBRARY count\n"
    "LIBRARY is libtalaria-cuda.so; GPU a number (default 0). Without names everything is "
    "measured; machine: only says which GPU it is; tiny: a matrix to try this program with; "
    "count: how many GPUs there are.\n"
    "kernel us: the GPU's time of a product, data resident, weights from memory; GB/s of int8 "
    "weights;\n"
    "int8TOPS counts six planes; bf16: cuBLAS, same shape; call us: host to host, copies "
    "included.\n"
    "GOAL lines say which of the project's goals for a GPU are met; they do not change the exit "
    "code.\n"
    "Exit codes: 0 measured; 2 wrong usage; 3 wrong residues; 5 no GPU, no driver or a lost GPU.\n";

int Main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // who is stopped has said what was measured
  if (argc < 2 || std::strcmp(argv[1], "--help") == 0) {
    std::fputs(kHelp, argc < 2 ? stderr : stdout);
    return argc < 2 ? ExitCode(Code::kInvalidArgument) : 0;
  }
  std::vector<std::string> names(argv + 2, argv + argc);
  int ordinal = 0;
  if (!names.empty() && names[0].find_first_not_of("0123456789") == std::string::npos) {
    ordinal = std::atoi(names[0].c_str());
    names.erase(names.begin());
  }
  const bool counting = names == std::vector<std::string>{"count"};
  for (const std::string& name : names) {
    if (!counting && name != "8b" && name != "70b" && name != "hints" && name != "machine" &&
        name != "tiny") {
      std::fputs(kHelp, stderr);
      return ExitCode(Code::kInvalidArgument);
    }
  }
  const auto wanted = [&](const char* name) {
    return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
  };
  const auto library = cuda::Library::Load(argv[1]);
  if (!library.ok()) Die(library.status().code(), library.status().message());
  if (counting) {
    int count = 0;
    talaria_cuda_error error{};
    const Status status = cuda::ToStatus(library->count(&count, &error), error);
    if (!status.ok()) Die(status.code(), status.message());
    std::printf("%d\n", count);
    return 0;
  }
  const bool tiny = !names.empty() && wanted("tiny");
  Bench bench(*library, ordinal, !tiny);
  if (wanted("8b")) bench.Products("8B", k8b);
  if (wanted("70b")) bench.Products("70B", k70b);
  if (wanted("hints")) bench.Hints("8B", k8b);
  if (tiny) {
    bench.Products("tiny", kTiny);
    bench.Hints("tiny", kTiny);
  }
  return 0;
}

}  // namespace
}  // namespace talaria::gemm

int main(int argc, char** argv) { return talaria::gemm::Main(argc, argv); }
