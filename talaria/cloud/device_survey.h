// What `--device` can take on this machine, and how long each device takes for a model's products:
// what a provider asks before a model is served.
#ifndef TALARIA_CLOUD_DEVICE_SURVEY_H_
#define TALARIA_CLOUD_DEVICE_SURVEY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/gemm/device.h"
#include "talaria/model/manifest.h"

namespace talaria::cloud {

// One thing that --device takes.
struct FoundDevice {
  std::string argument;  // "cpu", "cuda:0", "cuda:all"
  gemm::DeviceSpec spec;
  Status status;  // why it cannot be used
  // If it can be, which its self-test says:
  std::string name;
  std::optional<uint64_t> free_bytes;  // of its memory; of several GPUs together
};

struct DeviceList {
  std::vector<FoundDevice> devices;  // the processor first
  Status gpus;  // why no GPU can be asked for at all: no library, no driver, none there
};

// The processor with so many threads, every GPU, and all GPUs together if there are several.
DeviceList ListDevices(int threads);

// The median of several calls, from the host's memory to the host's, without a network: all
// products of a pass over the model with so many rows.
struct PassTime {
  uint32_t rows = 0;
  double seconds = 0;
};

// Puts weights of the model's shapes on the device, random ones, since the time does not depend on
// them, and multiplies. kResourceExhausted: they do not fit. Takes some seconds.
Result<std::vector<PassTime>> MeasurePasses(const gemm::DeviceSpec& spec,
                                            const model::Manifest& manifest);

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_DEVICE_SURVEY_H_
