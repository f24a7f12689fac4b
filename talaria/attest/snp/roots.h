// Whom SNP evidence may come from. What is pinned is compiled in; nothing of a chain but its leaf
// is ever taken from a peer, a host or a file.
#ifndef TALARIA_ATTEST_SNP_ROOTS_H_
#define TALARIA_ATTEST_SNP_ROOTS_H_

#include <vector>

#include "talaria/attest/snp/report.h"
#include "talaria/attest/x509.h"

namespace talaria::attest {

// The names, keys and signatures in it are checked with every report (verify.h).
struct SnpProductRoots {
  SnpProduct product;
  Digest ark_spki_sha256;  // the pin; `ark` must have that key
  Certificate ark;         // the root, self-signed
  Certificate ask;         // signs VCEKs
  Certificate asvk;        // signs VLEKs
};
struct SnpRoots {
  std::vector<SnpProductRoots> products;  // a product without an entry is refused
};

// AMD's: Milan, Genoa and Turin.
const SnpRoots& PinnedAmdRoots();

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_SNP_ROOTS_H_
