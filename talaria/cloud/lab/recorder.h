// LABORATORY ONLY: keeps what an honest-but-curious operator keeps: every masked row, its matrix
// group and its time (doc/recording.md). In talaria-cloud-lab and never in talaria-cloud.
#ifndef TALARIA_CLOUD_LAB_RECORDER_H_
#define TALARIA_CLOUD_LAB_RECORDER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "talaria/cloud/call_observer.h"
#include "talaria/lab/published_matrix.h"
#include "talaria/lab/row_files.h"
#include "talaria/model/store.h"

namespace talaria::cloud::lab {

struct RecorderOptions {
  std::string store;             // of the server
  std::string folder;            // RECORDING; its sub-folder cloud is made
  std::vector<uint32_t> groups;  // to keep; empty: all
  std::string scheme;            // what the CVM side runs, for the reader of the recording
  talaria::lab::PublicRows m;    // of the scheme `published`
};

class Recorder final : public CallObserver {
 public:
  // Reads all weights, for Delta of each group. kInvalidArgument, kIo, and the store's errors.
  static Result<std::shared_ptr<Recorder>> Create(const RecorderOptions& options);
  void OnMultiply(uint64_t connection, const wire::MultiplyHeader& request, Bytes planes) override;
  // The first thing that could not be written: the recording ends there. Any thread.
  Status status() const;

 private:
  Recorder(const model::Manifest& manifest, talaria::lab::RowFiles rows, talaria::lab::File calls);
  Status WriteDescription(const RecorderOptions& options, const model::Store& store);
  Status Record(uint64_t connection, const wire::MultiplyHeader& request, Bytes planes);
  bool IsPublic(uint32_t group, uint32_t rows, Bytes residues);

  struct Group {
    uint32_t d = 0;
    uint64_t rows = 0;         // recorded so far
    uint32_t public_rows = 0;  // rows of M_pub in a row that the CVM's set-up has asked for
  };
  mutable std::mutex mutex_;  // guards all that follows
  std::vector<Group> groups_;
  std::map<uint32_t, std::vector<uint8_t>> public_matrices_;  // d -> [m][d] x 6; `published` only
  talaria::lab::RowFiles rows_;
  talaria::lab::File calls_;
  uint64_t call_ = 0;
  std::vector<uint8_t> residues_;
  Status ended_;
};

}  // namespace talaria::cloud::lab

#endif  // TALARIA_CLOUD_LAB_RECORDER_H_
