// Runs every kernel that sees secrets under Valgrind's memcheck with the secrets marked as
// undefined, so that memcheck reports each branch and each address that depends on one of them.
//
//   valgrind --error-exitcode=1 constant_time_check portable|avx2     no report is expected
//   valgrind --error-exitcode=1 constant_time_check control-branch    one secret branch, which must
//   be reported valgrind --error-exitcode=1 constant_time_check control-address   one secret
//   address, which must be reported
//
// After each kernel the outputs must themselves count as undefined: otherwise memcheck lost track
// and its silence would mean nothing. Valgrind does not know AVX-512; those kernels are scanned
// instead (constant_time_scan.py).
#include <valgrind/memcheck.h>

#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "talaria/base/cpu.h"
#include "talaria/cvm/certificate.h"
#include "talaria/cvm/check_math.h"
#include "talaria/cvm/online.h"
#include "talaria/ring/aes_ctr.h"
#include "talaria/ring/batch.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/ntt.h"
#include "talaria/ring/sampler.h"

namespace talaria::cvm {
namespace {

constexpr int kNotSupported = 77;
bool all_tracked = true;

template <class T>
void MakeSecret(std::vector<T>& v) {
  VALGRIND_MAKE_MEM_UNDEFINED(v.data(), v.size() * sizeof(T));
}
template <class T>
void MakeSecret(T& object) {
  static_assert(std::is_trivially_copyable_v<T>);
  VALGRIND_MAKE_MEM_UNDEFINED(&object, sizeof object);
}

// Reports whether memcheck still takes any of these bytes for secret, then makes them public.
void ExpectSecret(const char* what, void* data, size_t size) {
  std::vector<unsigned char> undefined(size);
  size_t count = 0;
  if (VALGRIND_GET_VBITS(data, undefined.data(), size) == 1) {
    for (const unsigned char bits : undefined) count += bits != 0;
  }
  VALGRIND_MAKE_MEM_DEFINED(data, size);
  std::printf("%-28s %zu of %zu bytes depend on secrets\n", what, count, size);
  all_tracked = all_tracked && count != 0;
}

std::vector<uint64_t> Residues(size_t size) {
  std::vector<uint64_t> v(size);
  for (size_t i = 0; i < size; ++i) v[i] = (i * 0x9e3779b97f4a7c15) % ring::kQ;
  return v;
}

std::vector<uint8_t> PackedResidues(size_t size) {
  std::vector<uint8_t> bytes(size * ring::kResidueBytes + ring::kSlack);
  const std::vector<uint64_t> v = Residues(size);
  for (size_t i = 0; i < size; ++i) ring::StoreResidue(&bytes[i * ring::kResidueBytes], v[i]);
  return bytes;
}

// The online path, with a whole block, a whole panel and a broken one.
void CheckOnline(Isa isa, size_t check_vectors) {
  constexpr size_t kD = 64 + 32 + 13, kPadded = 128, kOutPadded = 128;
  std::vector<float> x(kD, 0.25f), scales(kD, 0.5f), out(kD);
  std::vector<uint8_t> mask = PackedResidues(kPadded), unmask = PackedResidues(kPadded),
                       planes(6 * kPadded);
  std::vector<uint8_t> residues = PackedResidues(kOutPadded);
  std::vector<uint64_t> u = Residues(kPadded), v = Residues(kOutPadded);
  const uint64_t *u_pointers[] = {u.data(), u.data()}, *v_pointers[] = {v.data(), v.data()};
  MakeSecret(x);
  MakeSecret(mask);
  MakeSecret(unmask);
  MakeSecret(u);
  MakeSecret(v);
  MakeSecret(residues);

  const auto certificate = Certificate::Compute({127, 127 * kD, uint64_t{127} * 127 * kD}, kD);
  RowNorms norms = NormsOf(isa, x.data(), kD);
  RowScale scale = certificate->ScaleFor(norms);
  MaskedRow masked = MaskRow(isa, x.data(), kD, kPadded, norms.finite_mask, scale.inverse,
                             certificate->delta_log2, mask.data(), ring::kPanelRowBytes,
                             check_vectors != 0, u_pointers, check_vectors, planes.data());
  bool holds = certificate->Holds(masked.norms);
  CheckedRow checked = CheckRow(isa, residues.data(), kOutPadded, v_pointers, check_vectors);
  UnmaskRow(isa, residues.data(), kD, unmask.data(), ring::kPanelRowBytes, check_vectors != 0,
            certificate->delta_log2, scale.sigma, scales.data(), out.data());

  ExpectSecret("NormsOf", &norms, sizeof norms);
  ExpectSecret("Certificate::ScaleFor", &scale, sizeof scale);
  ExpectSecret("MaskRow", planes.data(), planes.size());
  if (check_vectors != 0) ExpectSecret("MaskRow, u", &masked.dot, sizeof masked.dot);
  ExpectSecret("MaskRow, norms", &masked.norms, sizeof masked.norms);
  ExpectSecret("Certificate::Holds", &holds, sizeof holds);
  if (check_vectors != 0) ExpectSecret("CheckRow", &checked.dot, sizeof checked.dot);
  ExpectSecret("CheckRow, canonical", &checked.canonical_mask, sizeof checked.canonical_mask);
  ExpectSecret("UnmaskRow", out.data(), out.size() * sizeof(float));
}

// Key streams, secrets, errors and one pass that makes mask rows.
void CheckBatch(Isa isa) {
  std::array<uint8_t, 32> key{};
  MakeSecret(key);
  ring::AesCtrStream stream(key, 0);
  std::vector<ring::NttSecret> secrets(1);
  for (ring::Polynomial& s : secrets[0].s) ring::SampleTernary(stream, s);
  constexpr size_t kColumns = 40;
  std::vector<int8_t> errors(ring::kDegree * 64);
  ring::SampleError(isa, stream, errors);
  std::vector<uint64_t> v(64);
  ring::SampleResidues(stream, v);

  // Once more with every input marked here, whatever happened to the marks inside of the cipher.
  ring::Polynomial polynomial = secrets[0].s[0];
  ExpectSecret("SampleTernary", secrets.data(), sizeof secrets[0]);
  ExpectSecret("SampleError", errors.data(), errors.size());
  ExpectSecret("SampleResidues", v.data(), v.size() * sizeof v[0]);
  MakeSecret(secrets);
  secrets.push_back(secrets[0]);
  MakeSecret(errors);
  MakeSecret(polynomial);
  ring::ForwardNtt(polynomial);
  ExpectSecret("ForwardNtt", &polynomial, sizeof polynomial);
  MakeSecret(polynomial);
  ring::InverseNtt(polynomial);
  ExpectSecret("InverseNtt", &polynomial, sizeof polynomial);

  const std::vector<uint8_t> matrix =
      PackedResidues(ring::ModuleMatrixBytes(kColumns) / ring::kResidueBytes);
  std::vector<uint8_t> rows(ring::RowPanelsBytes(kColumns) + ring::kSlack), more(rows.size());
  void* scratch = nullptr;
  const size_t scratch_bytes = ring::RowGenerator::ScratchBytes();
  TALARIA_CHECK(posix_memalign(&scratch, 64, scratch_bytes) == 0);
  const ring::BatchOutput outputs[] = {{errors.data(), rows.data()}, {nullptr, more.data()}};
  ring::RowGenerator(isa, secrets, {static_cast<uint8_t*>(scratch), scratch_bytes})
      .Generate(matrix.data(), kColumns, 64, outputs);
  free(scratch);

  // The checks of a batch and of set-up.
  std::vector<WideSum> sums(ring::kDegree);
  AddPanelProducts(isa, rows.data(), 64, v.data(), sums.data());
  ExpectSecret("AddPanelProducts", sums.data(), sums.size() * sizeof sums[0]);
  ExpectSecret("RowGenerator with errors", rows.data(), rows.size());
  ExpectSecret("RowGenerator", more.data(), more.size());
  MakeSecret(v);
  std::vector<WideSum> error_sums(ring::kDegree);
  AddErrorProducts(isa, errors.data(), 64, kColumns, v.data(), error_sums.data());
  ExpectSecret("AddErrorProducts", error_sums.data(), error_sums.size() * sizeof error_sums[0]);
  uint64_t squares = SumOfSquares(isa, errors);
  ExpectSecret("SumOfSquares", &squares, sizeof squares);
  std::vector<WideSum> module_sums(ring::kSecretSize);
  const uint64_t* x_pointers[] = {v.data()};
  WideSum* sum_pointers[] = {module_sums.data()};
  AddModuleProducts(isa, matrix.data(), kColumns, x_pointers, 1, sum_pointers);
  ExpectSecret("AddModuleProducts", module_sums.data(), module_sums.size() * sizeof module_sums[0]);
  constexpr size_t kD = 48;
  const std::vector<int8_t> weights(kD * kColumns, 7);
  std::vector<uint64_t> products(kD);
  std::vector<int64_t> product_scratch(kD);
  uint64_t* product_pointers[] = {products.data()};
  AddWeightProducts(weights, kD, x_pointers, 1, product_pointers, product_scratch.data());
  ExpectSecret("AddWeightProducts", products.data(), products.size() * sizeof products[0]);
}

// The positive controls: what the check must find.
[[gnu::noinline]] uint64_t SecretBranch(const uint64_t* secret) {
  uint64_t sum = 0;
  for (int i = 0; i < 4; ++i) {
    if ((secret[i] & 1) != 0) {
      asm volatile("" : "+r"(sum));
      sum += 3;
    }
  }
  return sum;
}
[[gnu::noinline]] uint64_t SecretAddress(const uint64_t* secret) {
  static volatile const uint64_t kTable[4] = {1, 2, 3, 4};
  return kTable[secret[0] & 3];
}

int Run(std::string_view what) {
  if (RUNNING_ON_VALGRIND == 0) {
    std::fprintf(stderr, "constant_time_check: means nothing outside of valgrind\n");
    return 2;
  }
  std::vector<uint64_t> secret(4, 1);
  MakeSecret(secret);
  if (what == "control-branch") {
    uint64_t result = SecretBranch(secret.data());
    MakeSecret(result);
    return 0;
  }
  if (what == "control-address") {
    uint64_t result = SecretAddress(secret.data());
    MakeSecret(result);
    return 0;
  }
  const Isa isa = what == "avx2" ? Isa::kAvx2 : Isa::kPortable;
  if (what != IsaName(isa)) return 2;
  if (DetectIsa() < isa) return kNotSupported;
  for (size_t check_vectors = 0; check_vectors <= kMaxCheckVectors; ++check_vectors)
    CheckOnline(isa, check_vectors);
  CheckBatch(isa);
  if (!all_tracked) {
    std::fprintf(stderr, "constant_time_check: memcheck lost track of a secret\n");
    return 3;
  }
  return 0;
}

}  // namespace
}  // namespace talaria::cvm

int main(int argc, char** argv) { return argc == 2 ? talaria::cvm::Run(argv[1]) : 2; }
