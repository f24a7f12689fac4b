// LABORATORY ONLY: stands between a CVM and its cloud and keeps the beginnings of the masked rows
// that pass: what a cloud sees. A program of the cloud's could do the same, which is the point. Not
// in talaria-cvm.
#ifndef TALARIA_CVM_LAB_WIRE_TAP_H_
#define TALARIA_CVM_LAB_WIRE_TAP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::cvm::lab {

struct TappedCall {
  uint32_t group = 0, rows = 0, width = 0;  // width: d, padded
  std::vector<uint64_t> first_row;          // its first residues
};

struct Tapped {
  uint64_t calls = 0, rows = 0;
  std::vector<TappedCall> first;  // of the first calls
};

class WireTap {
 public:
  // Listens at `listen` and passes every connection on to `cloud`. Keeps `keep_values` residues of
  // the first row of each of the first `keep_calls` calls. kInvalidArgument, kIo.
  static Result<std::unique_ptr<WireTap>> Create(const std::string& listen,
                                                 const std::string& cloud, size_t keep_calls,
                                                 size_t keep_values);
  virtual ~WireTap() = default;  // cuts the connections
  virtual std::string address() const = 0;
  virtual Tapped Seen() const = 0;  // any thread
};

}  // namespace talaria::cvm::lab

#endif  // TALARIA_CVM_LAB_WIRE_TAP_H_
