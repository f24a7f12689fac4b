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

[[noreturn]] void Die(Code code, const std::string& text) {
  std::fprintf(stderr, "talaria-gpu-bench: %s\n", text.c_str());
  std::exit(ExitCode(code));
}

template <class F>
bool Find(void* library, const char* name, F& function) {
  function = library == nullptr ? nullptr : reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}
// cuBLAS, if this machine has one.
class Cublas {
 public:
  Cublas() {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
      void* const so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (Find(so, "cublasCreate_v2", create_) && Find(so, "cublasGemmEx", gemm_) &&
          create_(&handle_) == CUBLAS_STATUS_SUCCESS)
        return;
    }
    handle_ = nullptr;
  }
  bool there() const { return handle_ != nullptr; }

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
              cudaMemset(w, 0x3c, copies * weight_bytes) == cudaSuccess &&
              cudaMemset(x, 0x3c, size_t{s.d} * rows * 2) == cudaSuccess &&
              cudaEventCreate(&start) == cudaSuccess && cudaEventCreate(&stop) == cudaSuccess;
    const float one = 1, zero = 0;
    const int m = static_cast<int>(s.outputs), n = static_cast<int>(rows),
              k = static_cast<int>(s.d);
    for (int i = -3; i < repetitions && ok; ++i) {
      if (i == 0) ok = cudaEventRecord(start) == cudaSuccess;
      const char* from = w + static_cast<size_t>(i + 3) % copies * weight_bytes;
      ok = ok && gemm_(handle_, CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &one, from, CUDA_R_16BF, k, x,
                       CUDA_R_16BF, k, &zero, y, CUDA_R_16BF, m, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS;
    }
    float milliseconds = -1;
    ok = ok && cudaEventRecord(stop) == cudaSuccess && cudaEventSynchronize(stop) == cudaSuccess &&
         cudaEventElapsedTime(&milliseconds, start, stop) == cudaSuccess;
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    cudaFree(w);
    cudaFree(x);
    cudaFree(y);
    cudaGetLastError();
    return ok ? 1e3 * static_cast<double>(milliseconds) / repetitions : -1;
  }

 private:
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

void Goal(const char* verdict, const std::string& what) {
  std::printf("GOAL %s: %s\n", verdict, what.c_str());
}
std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f", value);
  return text;
}

class Bench {
 public:
  Bench(const cuda::Library& library, int ordinal) : library_(library), ordinal_(ordinal) {
    Check(library_.create(ordinal, &gpu_, &error_));
    talaria_cuda_info info{};
    Check(library_.describe(gpu_, &info, &error_));
    if (cublas_.there() && cudaSetDevice(ordinal) != cudaSuccess)
      Die(Code::kUnavailable, "the GPU is not there");
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    std::printf(
        "machine: %s, GPU %d: %s, compute capability %d.%d, %d multiprocessors, %.1f GiB "
        "(%.1f free), driver for CUDA %d.%d, built with %d.%d\n",
        host, ordinal, info.name, info.capability / 10, info.capability % 10, info.multiprocessors,
        static_cast<double>(info.memory_bytes) / (1 << 30),
        static_cast<double>(info.free_bytes) / (1 << 30), info.driver / 1000,
        info.driver % 1000 / 10, info.runtime / 1000, info.runtime % 1000 / 10);
    std::printf("cuBLAS: %s\n", cublas_.there() ? "found" : "not on this machine: no bf16 figures");
  }

  void Products(const std::string& model, std::span<const Shape> shapes) {
    double weights_read = 0;  // in a pass over the model
    std::printf("\n%-12s %13s %5s | %10s %8s %8s | %10s %6s | %10s\n", "shape", "d x outputs",
                "rows", "kernel us", "GB/s", "int8TOPS", "bf16 us", "ratio", "call us");
    double token_us[std::size(kRowCounts)] = {}, bf16_us[std::size(kRowCounts)] = {};
    for (const Shape& s : shapes) {
      weights_read += static_cast<double>(s.d) * s.outputs * s.per_token;
      const auto weights = Resident(s);
      for (size_t i = 0; i < std::size(kRowCounts); ++i) {
        const uint32_t rows = kRowCounts[i];
        const uint32_t repetitions = rows >= 256 ? 20 : 100;
        double us = 0;
        Check(library_.measure(weights.data(), weights.size(), rows, repetitions, &us, &error_));
        const double bf16 =
            cublas_.there() ? cublas_.Measure(s, rows, static_cast<int>(repetitions)) : -1;
        const double weight = static_cast<double>(s.d) * s.outputs;
        std::printf("%-12s %6u x %6u %4u | %10.1f %8.0f %8.1f |", s.name, s.d, s.outputs, rows, us,
                    weight / us * 1e-3, 12 * weight * rows / us * 1e-6);
        if (bf16 > 0) {
          std::printf(" %10.1f %6.2f |", bf16, us / bf16);
        } else {
          std::printf(" %10s %6s |", "-", "-");
        }
        std::printf(" %10.1f\n", CallUs(s, weights[0], rows));
        std::fflush(stdout);
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
    // About what bf16 takes at best, whoever wrote it.
    const double bandwidth = MeasureBandwidth(ordinal_), reading_us = 2 * weights_read / bandwidth;
    std::printf(
        "memory: %.0f GB/s at a copy; to read the model's weights as bf16 at that: %.2f ms\n",
        bandwidth * 1e-3, reading_us * 1e-3);
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
        Goal("unknown", what + goal + "; cuBLAS is not here. It is " +
                            Number(token_us[i] / reading_us) + " of the time to read bf16 weights");
      }
    }
  }

  // The products of the hints of one layer and of the head, host to host, slice by slice, as
  // provisioning makes them; without the public matrix and the disk.
  void Hints() {
    std::printf("\nhints of an 8B model (%u rows of the public matrix, slices of %u columns)\n",
                kHintRows, kHintColumns);
    double total = 0;
    for (const Shape& s : k8b) {
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
         "the hints of an 8B model in seconds; they take " + Number(total) + " s");
  }

 private:
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

  // From the host's memory to the host's memory, the median of several.
  double CallUs(const Shape& s, talaria_cuda_weights* w, uint32_t rows) {
    const std::vector<uint8_t> planes(size_t{rows} * kPlanes * PadInputs(s.d), 0x5a);
    std::vector<uint8_t> out(size_t{rows} * PadOutputs(s.outputs) * 6);
    std::vector<double> us;
    for (int i = 0; i < 11; ++i) {
      const auto start = std::chrono::steady_clock::now();
      Multiply(s.d, s.outputs, w, planes, rows, out);
      us.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
              .count());
    }
    std::nth_element(us.begin(), us.begin() + 5, us.end());
    return us[5];
  }

  const cuda::Library library_;
  const int ordinal_;
  Cublas cublas_;
  talaria_cuda* gpu_ = nullptr;
  talaria_cuda_error error_{};
};

constexpr const char* kHelp =
    "usage: talaria-gpu-bench LIBRARY [GPU] [8b|70b|hints|machine ...]\n"
    "       talaria-gpu-bench LIBRARY count\n"
    "LIBRARY is libtalaria-cuda.so; GPU a number (default 0). Without names everything is "
    "measured; count: how many GPUs there are.\n"
    "kernel us: the GPU's time of a product, data resident, weights from memory; GB/s of int8 "
    "weights;\n"
    "int8TOPS counts six planes; bf16: cuBLAS, same shape; call us: host to host, copies "
    "included.\n"
    "GOAL lines say which of the project's goals for a GPU are met; they do not change the exit "
    "code.\n"
    "Exit codes: 0 measured; 2 wrong usage; 3 wrong residues; 5 no GPU, no driver or a lost GPU.\n";

int Main(int argc, char** argv) {
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
    if (!counting && name != "8b" && name != "70b" && name != "hints" && name != "machine") {
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
  Bench bench(*library, ordinal);
  if (wanted("8b")) bench.Products("8B", k8b);
  if (wanted("70b")) bench.Products("70B", k70b);
  if (wanted("hints")) bench.Hints();
  return 0;
}

}  // namespace
}  // namespace talaria::gemm

int main(int argc, char** argv) { return talaria::gemm::Main(argc, argv); }
