// The weights of every group, packed once and shared by all connections, and the products with
// them.
#ifndef TALARIA_CLOUD_PRODUCT_SERVICE_H_
#define TALARIA_CLOUD_PRODUCT_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/cpu.h"
#include "talaria/base/result.h"
#include "talaria/cloud/fifo_lock.h"
#include "talaria/gemm/product.h"
#include "talaria/model/store.h"
#include "talaria/wire/messages.h"

namespace talaria::cloud {

class ProductService {
 public:
  // Reads all weights and compares their digests while packing them. kCorrupt names the matrix;
  // kIo, kResourceExhausted.
  static Result<std::unique_ptr<ProductService>> Create(const model::Store& store, int threads,
                                                        Isa isa);

  // The residues [rows][o_padded] x 6 bytes of a request whose tail is `planes`, in `buffer`, which
  // grows to the largest reply and stays; valid until it is used again. Everything is checked
  // before anything is allocated. Threads take turns by blocks of rows. kInvalidArgument: no such
  // group, a size that does not fit the rows, or a reply over `max_frame_bytes`. kCancelled:
  // `stopping` became true between two blocks.
  Result<Bytes> Multiply(const wire::MultiplyHeader& request, Bytes planes,
                         uint32_t max_frame_bytes, const std::atomic<bool>& stopping,
                         std::vector<uint8_t>& buffer);

 private:
  explicit ProductService(int threads) : team_(threads) {}
  Status Load(const model::Store& store, Isa isa);

  std::vector<gemm::PackedWeights> groups_;  // immutable after Create
  FifoLock turn_;                            // guards team_ and scratch_
  gemm::ThreadTeam team_;
  std::vector<uint8_t> scratch_;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_PRODUCT_SERVICE_H_
