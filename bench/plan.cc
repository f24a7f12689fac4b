#include "bench/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "talaria/cvm/setup.h"
#include "talaria/gemm/product.h"
#include "talaria/ring/layout.h"
#include "talaria/wire/messages.h"

namespace talaria::bench {
namespace {

constexpr double kRowsPerMessage = 256;  // of a prompt; the pools' batches are as large
constexpr double kEngineWidth = 576;     // of the model that the engine's rates are of

// Seconds, bytes; of all groups of one model for some rows.
struct Work {
  double network = 0, transfer = 0, product = 0, call = 0, encrypt = 0, kernels = 0, masks = 0;
  double calls = 0, up = 0, down = 0;
  double critical() const { return network + transfer + product + call + 2 * encrypt + kernels; }
};

struct Cloud {
  double bytes_per_second, products_per_second;
};

void AddGroup(const GroupShape& group, double rows, double messages, const Rates& r,
              const Deployment& deployment, const Cloud& cloud, Work& work) {
  const double count = group.count;
  const double inputs = static_cast<double>(gemm::PadInputs(group.d)),
               outputs = PaddedOutputs(group), weights = Weights(group);
  const double header = wire::kFrameHeaderBytes + wire::kCallHeaderBytes;
  const double up = messages * header + rows * 6 * inputs,
               down = messages * header + rows * 6 * outputs;
  work.calls += count * messages;
  work.up += count * up;
  work.down += count * down;
  work.network += count * messages * deployment.rtt_ms * 1e-3;
  if (deployment.gbit > 0) work.transfer += count * (up + down) * 8 / (deployment.gbit * 1e9);
  work.product += count * std::max(messages * weights / cloud.bytes_per_second,
                                   rows * weights / cloud.products_per_second);
  work.call += count * messages * r.call_wall_us.value * 1e-6;
  work.encrypt += count * (up + down) * r.encrypt_ns.value * 1e-9;
  work.kernels += count * rows * (group.d * r.mask_ns.value + outputs * r.open_ns.value) * 1e-9;
  work.masks += count * rows * (inputs + outputs) * r.generate_ns.value * 1e-9;
}

double CpuOf(const Work& work, const Rates& r) {
  return work.calls * r.call_cpu_us.value * 1e-6 + work.encrypt + work.kernels + work.masks;
}

void AddMemory(const ModelShape& shape, const Deployment& deployment, Estimate& out) {
  std::set<uint32_t> widths;
  double pool = 0;
  for (const GroupShape& group : shape.groups) {
    widths.insert(group.d);
    for (const uint32_t o : group.outputs)
      out.hints_gb += group.count * static_cast<double>(ring::ModuleMatrixBytes(o)) * 1e-9;
    const cvm::BatchExtent extent =
        cvm::BatchExtentOf(static_cast<uint32_t>(gemm::PadInputs(group.d)),
                           static_cast<uint32_t>(PaddedOutputs(group)));
    pool += group.count * static_cast<double>(extent.bytes);
  }
  out.pools_gb = deployment.pool_batches * pool * 1e-9;
  for (const uint32_t d : widths)
    out.public_gb += static_cast<double>(ring::ModuleMatrixBytes(d)) * 1e-9;
  out.talaria.memory_gb = out.hints_gb + out.pools_gb + out.public_gb + shape.kept_bytes * 1e-9;
  out.alone.memory_gb = (shape.product_bytes + shape.kept_bytes) * 1e-9;
}

std::string Times(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, ratio < 10 ? "%.2f" : "%.0f", ratio);
  return text;
}

void Judge(Estimate& out) {
  const double decode = out.talaria.decode / out.alone.decode,
               prompt = out.talaria.prompt / out.alone.prompt,
               cpu = out.talaria.decode_cpu_ms / out.alone.decode_cpu_ms;
  if (decode >= 1 && prompt >= 1) {
    out.verdict = "Talaria pays";
  } else if (decode < 1 && prompt < 1) {
    out.verdict = "everything inside the confidential VM is faster";
  } else {
    out.verdict = decode >= 1 ? "Talaria pays for answers, not for prompts"
                              : "Talaria pays for prompts, not for answers";
  }
  out.reasons.push_back("decoding is " + Times(decode) + " times, prompts " + Times(prompt) +
                        " times as fast as the model alone in the confidential VM");
  const struct {
    double ms;
    const char* words;
  } parts[] = {{out.step.network, "round trips"},
               {out.step.bytes, "bytes on the wire"},
               {out.step.product, "the cloud's products"},
               {out.step.call + out.step.kernels, "masking, checking and calling"},
               {out.step.engine, "llama.cpp's own part"}};
  const auto* most = std::max_element(std::begin(parts), std::end(parts),
                                      [](auto& a, auto& b) { return a.ms < b.ms; });
  out.reasons.push_back(out.step.masks_bound
                            ? "making masks bounds decoding: more cores would help"
                            : "most of a decoding step goes to " + std::string(most->words));
  if (cpu < 1 && (decode < 1 || prompt < 1)) {
    out.reasons.push_back("a decoded token takes " + Times(cpu) +
                          " times the confidential VM's CPU: with more users a step "
                          "(--users), round trips are shared and Talaria gains");
  }
  if (out.talaria.memory_gb > out.alone.memory_gb) {
    out.reasons.push_back("it takes " + Times(out.talaria.memory_gb / out.alone.memory_gb) +
                          " times the confidential VM's memory");
  }
}

}  // namespace

Rates ChargeCalls(const ModelShape& shape, Rates rates, const MeasuredRun& run) {
  Rates without = rates;
  without.call_wall_us.value = without.call_cpu_us.value = 0;
  // llama-bench counts from an empty context.
  const Estimate parts = MakeEstimate(
      shape, without, {.cores = run.cores, .cloud_cores = run.cloud_cores, .context = 256});
  const double trips = parts.round_trips;
  const Step& s = parts.step;
  const double explained = s.product + s.call + s.kernels + s.engine;
  const auto charge = [&](Rate& rate, double us) {
    if (us > rate.value) rate = {us, run.source};
  };
  charge(rates.call_wall_us, (1e3 / run.tokens_per_second - explained) * 1e3 / trips);
  charge(rates.call_cpu_us, (run.cvm_cpu_ms - parts.talaria.decode_cpu_ms) * 1e3 / trips);
  return rates;
}

Estimate MakeEstimate(const ModelShape& shape, const Rates& r, const Deployment& d) {
  Estimate out;
  const double cores = d.cores, users = d.users, prompt = d.prompt;
  const Cloud cloud = {
      (d.cloud_gb > 0 ? d.cloud_gb : r.cloud_read_gb.value * d.cloud_cores) * 1e9,
      (d.cloud_gmac > 0 ? d.cloud_gmac : r.cloud_gmac.value * d.cloud_cores) * 1e9};
  const double scale = shape.width / kEngineWidth;
  double weights = 0, layer_weights = 0;
  Work decoding, reading;
  for (const GroupShape& group : shape.groups) {
    AddGroup(group, users, 1, r, d, cloud, decoding);
    AddGroup(group, group.head ? 1 : prompt, group.head ? 1 : std::ceil(prompt / kRowsPerMessage),
             r, d, cloud, reading);
    weights += Weights(group) * group.count;
    if (!group.head) layer_weights += Weights(group) * group.count;
  }
  out.weights = weights;
  out.round_trips = RoundTrips(shape);
  out.bytes_up = decoding.up / users;
  out.bytes_down = decoding.down / users;

  // llama.cpp's own part, on both sides alike. Keys and values are 16 bits each.
  const double keys = users * d.context * 2 * shape.kv_width * 2 * shape.layers;
  const double own = users * shape.layers * r.engine_decode_us.value * 1e-6 * scale;
  const double read = r.read_gb.value * 1e9;
  const double engine = own + keys / (read * cores), engine_cpu = own + keys / read;
  const double own_prompt = prompt * shape.layers * r.engine_prompt_us.value * 1e-6 * scale;

  // Talaria.
  const double cpu = CpuOf(decoding, r) + engine_cpu;
  const double critical = decoding.critical() + engine;
  const double step = std::max(critical, cpu / cores);
  out.step = {decoding.network * 1e3, decoding.transfer * 1e3,
              decoding.product * 1e3, (decoding.call + 2 * decoding.encrypt) * 1e3,
              decoding.kernels * 1e3, engine * 1e3,
              decoding.masks * 1e3,   cpu / cores > critical};
  const double prompt_cpu = CpuOf(reading, r) + own_prompt;
  out.talaria.decode = users / step;
  out.talaria.decode_cpu_ms = cpu / users * 1e3;
  out.talaria.prompt =
      prompt / std::max(reading.critical() + own_prompt / cores, prompt_cpu / cores);
  out.talaria.prompt_cpu_ms = prompt_cpu / prompt * 1e3;

  // Alone. One row at a time a weight is unpacked for one product; a batch shares that.
  const double one = weights / (r.plain_decode_gmac.value * 1e9),
               many = users * weights / (r.plain_prompt_gmac.value * 1e9);
  const double multiply = std::min(users * one, std::max(one, many));
  const double products = std::max(shape.product_bytes / read, multiply);  // core seconds
  out.alone.decode = users / (products / cores + engine);
  out.alone.decode_cpu_ms = (products + engine_cpu) / users * 1e3;
  const double prompt_products = prompt * layer_weights / (r.plain_prompt_gmac.value * 1e9) + one;
  out.alone.prompt = prompt / ((prompt_products + own_prompt) / cores);
  out.alone.prompt_cpu_ms = (prompt_products + own_prompt) / prompt * 1e3;

  AddMemory(shape, d, out);
  Judge(out);
  return out;
}

}  // namespace talaria::bench
