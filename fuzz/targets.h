// What is fuzzed: every parser of bytes that a peer or a provider wrote. One function each;
// libFuzzer calls it with what it invents (fuzzer_main.cc), and replay_test.cc with the corpus, in
// every build. They return whether anything of the input was accepted. A broken invariant ends the
// program.
#ifndef TALARIA_FUZZ_TARGETS_H_
#define TALARIA_FUZZ_TARGETS_H_

#include "talaria/base/bytes.h"

namespace talaria::fuzz {

// u8 bytes per read - 1, u8 limit (in units of 64 bytes), then the peer's stream: frames over a
// transport that yields pieces.
bool Frames(Bytes input);
// u8 frame type, then a body: whatever is accepted encodes to the same bytes.
bool Messages(Bytes input);
// The text of manifest.json: whatever is accepted encodes to the same text and has a layout.
bool Manifest(Bytes input);
// u32 bytes that the file has after the prefix, then the prefix: tensors lie inside the file.
bool GgufHeader(Bytes input);
// What a client sends to the cloud after it connected: the session ends, and every reply is a
// frame.
bool CloudSession(Bytes input);

// What a CVM's evidence and what comes with it consist of: a quote, the extension of its PCK
// certificate, and the JSON of Intel's collateral.
bool TdxQuote(Bytes input);
bool PckExtension(Bytes input);
bool TdxCollateral(Bytes input);
// And of SEV-SNP: a report, the host's table of certificates, and a leaf's extensions.
bool SnpReport(Bytes input);
bool SnpCertificateTable(Bytes input);
bool SnpVek(Bytes input);

// What `talaria receipt verify` reads: whatever is accepted encodes to the same bytes.
bool Receipt(Bytes input);
// A builder's release file behind its signature, likewise; and the header that Intel's servers send
// certificates in.
bool Release(Bytes input);
bool IssuerChain(Bytes input);

struct Target {
  const char* name;  // also the corpus folder's
  bool (*run)(Bytes input);
};
inline constexpr Target kTargets[] = {{"frames", Frames},
                                      {"messages", Messages},
                                      {"manifest", Manifest},
                                      {"gguf_header", GgufHeader},
                                      {"cloud_session", CloudSession},
                                      {"tdx_quote", TdxQuote},
                                      {"pck_extension", PckExtension},
                                      {"tdx_collateral", TdxCollateral},
                                      {"snp_report", SnpReport},
                                      {"snp_certificate_table", SnpCertificateTable},
                                      {"snp_vek", SnpVek},
                                      {"receipt", Receipt},
                                      {"release", Release},
                                      {"issuer_chain", IssuerChain}};

}  // namespace talaria::fuzz

#endif  // TALARIA_FUZZ_TARGETS_H_
