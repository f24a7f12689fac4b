// Which instruction-set level the kernels use. Chosen once at start; TALARIA_ISA lowers it for
// tests and benchmarks of the programs that read their environment (talaria-cvm does not).
#ifndef TALARIA_BASE_CPU_H_
#define TALARIA_BASE_CPU_H_

#include <string_view>
#include <vector>

namespace talaria {

enum class Isa {
  kPortable,  // plain C++: the oracle that every other path equals bit for bit
  kAvx2,      // AVX2 and FMA
  kAvx512,    // AVX-512 F, BW, DQ, VL, VBMI, IFMA, VNNI, VPOPCNTDQ (Ice Lake, Zen 4 and later)
  kAmx,  // the same and AMX int8 tiles (Sapphire Rapids and later); the kernels of the masks have
         // no use for it and run as with kAvx512
};

// The best level that this processor and operating system support. Linux hands out AMX tiles to
// processes that ask for them: the first call does.
Isa DetectIsa();
// Every supported level, portable first: what tests run through.
std::vector<Isa> SupportedIsas();
std::string_view IsaName(Isa isa);

}  // namespace talaria

#endif  // TALARIA_BASE_CPU_H_
