// The weights of every group, resident on one device and shared by all connections, and the
// products with them.
#ifndef TALARIA_CLOUD_PRODUCT_SERVICE_H_
#define TALARIA_CLOUD_PRODUCT_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
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
                                                        BatchScheduler::Options options,
                                                        int max_connections_per_cvm);

  // Whose a request is; one of them a connection. The service outlives it.
  class Connection {
   public:
    explicit Connection(ProductService& service) : service_(service), place_(*service.scheduler_) {}
    ~Connection();
    // It is the CVM's with that attested key, with which it shares turns and rows from now on.
    // Once, before the first Multiply. kResourceExhausted: that CVM has enough connections.
    Status Admit(const Digest& cvm_key);

   private:
    friend class ProductService;
    ProductService& service_;
    BatchScheduler::Place place_;
    std::optional<Digest> cvm_;
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

  struct Cvm {
    std::shared_ptr<BatchScheduler::Account> account;
    int connections = 0;
  };

  ProductService(std::shared_ptr<gemm::Device> device, int max_connections_per_cvm)
      : device_(std::move(device)), max_connections_per_cvm_(max_connections_per_cvm) {}
  Status Load(const model::Store& store);

  const std::shared_ptr<gemm::Device> device_;
  std::vector<Group> groups_;
  std::unique_ptr<BatchScheduler> scheduler_;
  const int max_connections_per_cvm_;
  std::mutex mutex_;
  std::map<Digest, Cvm> cvms_;  // that have connections
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_PRODUCT_SERVICE_H_
