// The weights of every group, resident on one device and shared by all connections, and the
// products with them.
#ifndef TALARIA_CLOUD_PRODUCT_SERVICE_H_
#define TALARIA_CLOUD_PRODUCT_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"
#include "talaria/cloud/batch_scheduler.h"
#include "talaria/gemm/device.h"
#include "talaria/model/store.h"
#include "talaria/wire/messages.h"

namespace talaria::cloud {

class ProductService {
 public:
  // Reads all weights and compares their digests while the device takes them. The device has passed
  // its self-test. kCorrupt names the matrix; kIo, kResourceExhausted, kUnavailable.
  static Result<std::unique_ptr<ProductService>> Create(const model::Store& store,
                                                        std::shared_ptr<gemm::Device> device,
                                                        BatchScheduler::Options options);

  // Whose a request is; one of them a connection.
  class Connection {
   public:
    explicit Connection(ProductService& service) : place_(*service.scheduler_) {}

   private:
    friend class ProductService;
    BatchScheduler::Place place_;
  };

  // The residues [rows][o_padded] x 6 bytes of a request whose tail is `planes`, in `buffer`, which
  // grows to the largest reply and stays; valid until it is used again. Everything is checked
  // before anything is allocated. How threads take turns: batch_scheduler.h. kInvalidArgument: no
  // such group, a size that does not fit the rows, or a reply over `max_frame_bytes`. kCancelled:
  // `stopping` became true before the last row. kResourceExhausted: the device had no memory for
  // it. kInternal: the device is lost.
  Result<Bytes> Multiply(Connection& connection, const wire::MultiplyHeader& request, Bytes planes,
                         uint32_t max_frame_bytes, const std::atomic<bool>& stopping,
                         std::vector<uint8_t>& buffer);
  BatchScheduler::Stats stats() const { return scheduler_->stats(); }

 private:
  struct Group {
    size_t in_row_bytes, out_row_bytes;
    std::unique_ptr<gemm::DeviceWeights> weights;  // immutable after Create
  };

  explicit ProductService(std::shared_ptr<gemm::Device> device) : device_(std::move(device)) {}
  Status Load(const model::Store& store);

  const std::shared_ptr<gemm::Device> device_;
  std::vector<Group> groups_;
  std::unique_ptr<BatchScheduler> scheduler_;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_PRODUCT_SERVICE_H_
