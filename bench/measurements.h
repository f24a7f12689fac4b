// What end-to-end and layer measure, for whoever prints it: all of their rows, or some.
#ifndef TALARIA_BENCH_MEASUREMENTS_H_
#define TALARIA_BENCH_MEASUREMENTS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/commands.h"
#include "bench/layer_model.h"
#include "bench/pairs.h"

namespace talaria::bench {

using Wanted = std::function<bool(const std::string& row)>;

// The rows of end-to-end whose name is `wanted`, in its order. `lab` has the options' setting and
// must outlive them. Measures shortly which number of threads is plain llama.cpp's better one.
Result<std::vector<Subject>> EndToEndSubjects(const EndToEndOptions& options, Laboratory& lab,
                                              const Wanted& wanted);

struct LayerRun {
  LayerShape shape;
  Setting setting;  // with the layer's model and store
  std::unique_ptr<Laboratory> lab;
  std::vector<Row> rows;  // "decode, q8_0"
};
// The rows of layer whose name is `wanted`. kResourceExhausted: memory or disk.
Result<LayerRun> MeasureLayer(const LayerOptions& options, const Wanted& wanted);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_MEASUREMENTS_H_
