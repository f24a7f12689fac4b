// Single-steps every kernel that sees secrets, on several sets of secrets, and compares the
// instructions that were executed: the sequence of addresses must be the same for all of them.
// Unlike Valgrind this knows every instruction set; unlike it, it sees branches only on the inputs
// it tries, and no data addresses (constant_time_scan.py refuses gathers). The steps are those of
// the processor's trap flag, with a signal handler in the same process (10 to 40 us each, so the
// inputs are small).
//
//   constant_time_trace avx2|avx512   no difference is expected
//   constant_time_trace control       one secret branch, which must be found
#include <ucontext.h>

#include <bit>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <random>
#include <string_view>
#include <vector>

#include "talaria/base/cpu.h"
#include "talaria/cvm/certificate.h"
#include "talaria/cvm/check_math.h"
#include "talaria/cvm/online.h"
#include "talaria/ring/batch.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

constexpr int kNotSupported = 77;
constexpr int kOnlineSets = 5;
constexpr int kBatchSets = 2;  // a thousand times the instructions
constexpr size_t kD = 64 + 32 + 13, kPadded = 128, kColumns = 8;

// Everything that the kernels read and write; only the secrets differ between sets.
struct Workload {
  std::vector<float> x, scales, out;
  std::vector<uint64_t> u, v;
  std::vector<uint8_t> mask, unmask, residues, planes, matrix, rows, scratch_bytes;
  std::vector<int8_t> errors;
  std::vector<WideSum> sums, module_sums;
  ring::NttSecret secret;
  uint8_t* scratch;

  // Set 0: all zeros; 1: everything at its largest; 2: not finite; then random.
  explicit Workload(int set)
      : x(kD),
        scales(kD, 0.5f),
        out(kD),
        u(kPadded),
        v(kPadded),
        mask(kPadded * 6),
        unmask(mask),
        residues(mask),
        planes(6 * kPadded),
        matrix(ring::ModuleMatrixBytes(kColumns) + ring::kSlack, 3),
        rows(ring::RowPanelsBytes(32) + ring::kSlack),
        scratch_bytes(ring::RowGenerator::ScratchBytes() + 64),
        errors(ring::kDegree * 64),
        sums(ring::kDegree),
        module_sums(ring::kSecretSize),
        secret{} {
    std::mt19937_64 random(static_cast<uint64_t>(set));
    auto residue = [&] { return set == 0 ? 0 : set == 1 ? ring::kQ - 1 : random() % ring::kQ; };
    for (float& value : x) {
      value = set == 0   ? 0.0f
              : set == 1 ? 3e38f
              : set == 2 ? std::bit_cast<float>(static_cast<uint32_t>(0x7f800000 + random() % 2))
                         : std::ldexp(static_cast<float>(random() % 2001) - 1000.0f,
                                      static_cast<int>(random() % 200) - 120);
    }
    for (auto* vector : {&u, &v}) {
      for (uint64_t& value : *vector) value = residue();
    }
    for (auto* row : {&mask, &unmask, &residues}) {
      for (size_t i = 0; i < kPadded; ++i) ring::StoreResidue(row->data() + 6 * i, residue());
    }
    for (int8_t& error : errors)
      error = static_cast<int8_t>(set == 0   ? 0
                                  : set == 1 ? 21
                                             : static_cast<int>(random() % 43) - 21);
    for (ring::Polynomial& s : secret.s) {
      for (uint64_t& value : s) value = residue();
    }
    scratch =
        scratch_bytes.data() + (64 - reinterpret_cast<uintptr_t>(scratch_bytes.data()) % 64) % 64;
  }

  void RunOnline(Isa isa) {
    const uint64_t *u_pointers[] = {u.data(), v.data()}, *v_pointers[] = {v.data(), u.data()};
    const auto certificate = Certificate::Compute({127, 127 * kD, uint64_t{127} * 127 * kD}, kD);
    const RowNorms norms = NormsOf(isa, x.data(), kD);
    const RowScale scale = certificate->ScaleFor(norms);
    for (size_t vectors = 0; vectors <= kMaxCheckVectors; ++vectors) {
      const bool wipe = vectors == kMaxCheckVectors;
      const MaskedRow masked = MaskRow(isa, x.data(), kD, kPadded, norms.finite_mask, scale.inverse,
                                       certificate->delta_log2, mask.data(), ring::kPanelRowBytes,
                                       wipe, u_pointers, vectors, planes.data());
      volatile bool holds = certificate->Holds(masked.norms);
      static_cast<void>(holds);
      CheckRow(isa, residues.data(), kPadded, v_pointers, vectors);
      UnmaskRow(isa, residues.data(), kD, unmask.data(), ring::kPanelRowBytes, wipe,
                certificate->delta_log2, scale.sigma, scales.data(), out.data());
    }
  }

  void RunBatch(Isa isa) {
    const ring::BatchOutput outputs[] = {{errors.data(), rows.data()}};
    ring::RowGenerator(isa, {&secret, 1}, {scratch, ring::RowGenerator::ScratchBytes()})
        .Generate(matrix.data(), kColumns, 64, outputs);
    AddPanelProducts(isa, rows.data(), 32, v.data(), sums.data());
    AddErrorProducts(isa, errors.data(), 64, kColumns, v.data(), sums.data());
    volatile uint64_t squares = SumOfSquares(isa, errors);
    static_cast<void>(squares);
    const uint64_t* v_pointers[] = {v.data()};
    WideSum* sum_pointers[] = {module_sums.data()};
    AddModuleProducts(isa, matrix.data(), kColumns, v_pointers, 1, sum_pointers);
  }
};

struct Trace {
  uint64_t hash = 0xcbf29ce484222325, steps = 0;
};
Trace* current = nullptr;

void OnStep(int, siginfo_t*, void* context) {
  const auto address =
      static_cast<uint64_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
  current->hash = (current->hash ^ address) * 0x100000001b3;
  ++current->steps;
}

// Over the red zone, which belongs to the compiler.
[[gnu::always_inline]] inline void StartSteps() {
  asm volatile(
      "leaq -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; leaq 128(%%rsp), %%rsp" ::
          : "memory", "cc");
}
[[gnu::always_inline]] inline void StopSteps() {
  asm volatile(
      "leaq -128(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; leaq 128(%%rsp), %%rsp" ::
          : "memory", "cc");
}

// The branch that the control is there to show.
[[gnu::noinline]] void SecretBranch(Workload& workload) {
  if (workload.u[0] == 0) workload.u[1] = workload.v[1] + 7;
  asm volatile("" ::: "memory");
}

template <class Body>
[[gnu::noinline]] Trace TraceOf(const Body& body) {
  Trace trace;
  current = &trace;
  StartSteps();
  body();
  StopSteps();
  return trace;
}

template <class Body>
bool SameTraces(const char* what, int sets, const Body& body) {
  Workload warm(kOnlineSets);
  body(warm);  // whatever is initialised at its first use
  Trace first;
  for (int set = 0; set < sets; ++set) {
    Workload workload(set);
    const Trace trace = TraceOf([&] { body(workload); });
    std::printf("%s, secrets %d: %llu instructions, %016llx\n", what, set,
                static_cast<unsigned long long>(trace.steps),
                static_cast<unsigned long long>(trace.hash));
    if (set == 0) first = trace;
    if (trace.steps == 0 || trace.steps != first.steps || trace.hash != first.hash) {
      std::printf("%s: the instructions depend on the secrets\n", what);
      return false;
    }
  }
  return true;
}

int Run(std::string_view what) {
  struct sigaction action = {};
  action.sa_sigaction = OnStep;
  action.sa_flags = SA_SIGINFO;
  TALARIA_CHECK(sigaction(SIGTRAP, &action, nullptr) == 0);
  if (what == "control") return SameTraces("control", kOnlineSets, SecretBranch) ? 0 : 1;
  const Isa isa = what == "avx2" ? Isa::kAvx2 : Isa::kAvx512;
  if (what != IsaName(isa)) return 2;
  if (DetectIsa() < isa) return kNotSupported;
  const bool same = SameTraces("online", kOnlineSets, [isa](Workload& w) { w.RunOnline(isa); }) &&
                    SameTraces("batch", kBatchSets, [isa](Workload& w) { w.RunBatch(isa); });
  return same ? 0 : 1;
}

}  // namespace
}  // namespace talaria::cvm

int main(int argc, char** argv) { return argc == 2 ? talaria::cvm::Run(argv[1]) : 2; }
