#include "bench/scaling.h"

#include <algorithm>
#include <cstdio>

#include "bench/llama_bench.h"
#include "bench/process.h"
#include "talaria/gemm/product.h"

namespace talaria::bench {
namespace {

constexpr size_t kWidths[] = {512, 1024, 2048, 4096, 8192, 16384};
constexpr size_t kRows[] = {1, 4, 16, 64, 256, 1024};
constexpr int kDepths[] = {0, 512, 2048};
constexpr size_t kQuickWidth = 4096, kQuickRows = 256;
constexpr int kQuickDepth = 512;
// From memory, per element and row. A batch row of M or U is read once and wiped; the matrix is
// 12,288 bytes for 256 rows, and a row is written.
constexpr double kOnlineBytes = 12, kMatrixBytes = 48, kRowBytes = 6;

Summary Exact(double value) { return {.median = value, .min = value, .max = value}; }

bool Wanted(const ScalingOptions& options, const std::string& name) {
  if (options.only.empty()) return !options.quick || name != "context";
  return std::find(options.only.begin(), options.only.end(), name) != options.only.end();
}

double PeakOf(Isa isa, const MachineRates& rates) {
  if (isa == Isa::kAmx) return kAmxProductsPerCycle * rates.clock_ghz.max;
  return isa == Isa::kAvx512 ? 64 * rates.vnni_per_ns.max : 0;
}

Result<Series> MeasureCvmSeries(const ScalingOptions& options, const Scaling& machine,
                                const Timing& timing) {
  Series series{"cvm",
                "d",
                "a group of one matrix [d x d]; bounds: 12 bytes an element for masking and for "
                "unmasking, and for making masks 48 / batches + 6 bytes or 3.9 vpmadd52",
                {}};
  const double read = machine.rates.read_gb_per_second.max, ifma = machine.rates.ifma_per_ns.max;
  const double arithmetic = ifma > 0 ? kIfmaPerElement / ifma : 0;
  for (const size_t d : kWidths) {
    if (options.quick && d > kQuickWidth) break;
    std::fprintf(stderr, "CVM, d = %zu\n", d);
    TALARIA_ASSIGN_OR_RETURN(const CvmCosts c, MeasureCvm(machine.isa, d, d, timing));
    const double n = static_cast<double>(d);
    // Sums of medians: the parts are not measured in pairs.
    const auto row = [n](std::initializer_list<const Summary*> parts) {
      Summary sum;
      for (const Summary* part : parts) {
        sum.median += part->median * n * 1e-3;
        sum.min += part->min * n * 1e-3;
        sum.max += part->max * n * 1e-3;
      }
      return sum;
    };
    const double one = std::max((kMatrixBytes + kRowBytes) / read, arithmetic),
                 four = std::max((kMatrixBytes / 4 + kRowBytes) / read, arithmetic);
    series.points.push_back(
        {n,
         {{"mask_ns", c.mask_ns, kOnlineBytes / read},
          {"check_ns", c.check_ns, 0},
          {"unmask_ns", c.unmask_ns, kOnlineBytes / read},
          {"generate_ns", c.generate_ns, one},
          {"generate_four_ns", c.generate_four_ns, four},
          {"online_row_us", row({&c.mask_ns, &c.check_ns, &c.unmask_ns}),
           2 * kOnlineBytes / read * n * 1e-3},
          {"generate_row_us", row({&c.generate_ns, &c.generate_ns}), 2 * one * n * 1e-3}}});
  }
  return series;
}

Result<Measured> ProductPoint(const Scaling& machine, size_t d, size_t rows, const Timing& timing) {
  std::fprintf(stderr, "product, d = %zu, %zu rows\n", d, rows);
  TALARIA_ASSIGN_OR_RETURN(const Summary us,
                           MeasureProduct(machine.product_isa, d, d, rows, timing));
  const double weights = static_cast<double>(d * d);
  double bound = weights * 1e-3 / machine.rates.read_gb_per_second.max;
  if (machine.product_peak > 0) {
    bound = std::max(bound, 6 * weights * static_cast<double>(rows) * 1e-3 / machine.product_peak);
  }
  return Measured{"product_us", us, bound};
}

Result<Series> MeasureProductSeries(const ScalingOptions& options, const Scaling& machine,
                                    const Timing& timing) {
  Series series{"product",
                "d",
                "one row times [d x d] int8; bound: reading the weights once, or six products for "
                "each at the instruction's peak",
                {}};
  for (const size_t d : kWidths) {
    if (options.quick && d > kQuickWidth) break;
    TALARIA_ASSIGN_OR_RETURN(Measured point, ProductPoint(machine, d, 1, timing));
    series.points.push_back({static_cast<double>(d), {std::move(point)}});
  }
  return series;
}

Result<Series> MeasureRowsSeries(const ScalingOptions& options, const Scaling& machine,
                                 const Timing& timing) {
  const size_t d = options.quick ? kQuickWidth / 2 : kQuickWidth;
  Series series{
      "rows",
      "rows",
      "rows times [" + std::to_string(d) + " x " + std::to_string(d) + "] int8; the same bound",
      {}};
  for (const size_t rows : kRows) {
    if (options.quick && rows > kQuickRows) break;
    TALARIA_ASSIGN_OR_RETURN(Measured point, ProductPoint(machine, d, rows, timing));
    series.points.push_back({static_cast<double>(rows), {std::move(point)}});
  }
  return series;
}

Series WireSeries(const ScalingOptions& options) {
  Series series{"wire",
                "d",
                "one row of a group [d x d], frames and headers included, without "
                "TLS; bound: 6 bytes an element",
                {}};
  for (const size_t d : kWidths) {
    if (options.quick && d > kQuickWidth) break;
    const double least = 6 * static_cast<double>(d);
    series.points.push_back({static_cast<double>(d),
                             {{"up_bytes", Exact(WireBytesUp(d, 1)), least},
                              {"down_bytes", Exact(WireBytesDown(d, 1)), least}}});
  }
  return series;
}

Result<double> MsPerToken(const Result<Timed>& timed) {
  if (!timed.ok()) return timed.status();
  return timed->seconds / timed->tokens * 1e3;
}

// Attention is llama.cpp's, inside the CVM; Talaria's own part must not grow with it.
Result<Series> MeasureContextSeries(const ScalingOptions& options) {
  const Setting& s = options.setting;
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
  TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(s));
  Series series{"context",
                "depth",
                "decoding 32 tokens after so many, plain llama.cpp beside Talaria; bound: plain, "
                "and what Talaria adds at depth 0",
                {}};
  for (const int depth : kDepths) {
    if (options.quick && depth > kQuickDepth) break;
    const std::vector<std::string> test = {"-p", "0", "-n", "32", "-d", std::to_string(depth),
                                           "-r", "1"};
    std::vector<double> plain, masked, added;
    for (int run = 0; run < options.runs; ++run) {
      TALARIA_ASSIGN_OR_RETURN(
          const Finished finished,
          RunProcess(LlamaBench({s.llama + "/plain/bin/llama-bench", "-m", s.model}, test, 2),
                     s.work + "/plain.log"));
      TALARIA_ASSIGN_OR_RETURN(const double without, MsPerToken(ParseLlamaBench(finished.output)));
      TALARIA_ASSIGN_OR_RETURN(const MaskedRun run_masked,
                               lab->Run(LlamaBench({"llama-bench"}, test, 1)));
      TALARIA_ASSIGN_OR_RETURN(const double with, MsPerToken(ParseLlamaBench(run_masked.output)));
      plain.push_back(without);
      masked.push_back(with);
      added.push_back(with - without);
      std::fprintf(stderr, "context %d, run %d/%d: plain %.1f, Talaria %.1f ms/token\n", depth,
                   run + 1, options.runs, without, with);
    }
    const Summary plain_ms = Summarise(plain), added_ms = Summarise(added);
    const double at_zero =
        series.points.empty() ? added_ms.median : series.points[0].second[2].value.median;
    series.points.push_back(
        {static_cast<double>(depth),
         {{"plain_ms_per_token", plain_ms, 0},
          {"talaria_ms_per_token", Summarise(masked), plain_ms.median + at_zero},
          {"added_ms_per_token", added_ms, at_zero}}});
  }
  return series;
}

}  // namespace

Result<Scaling> MeasureScaling(const ScalingOptions& options) {
  const Timing timing{.runs = options.runs, .seconds = options.quick ? 0.005 : 0.02};
  Scaling out;
  out.isa = std::min(DetectIsa(), Isa::kAvx512);  // masks have no use for more
  out.product_isa = gemm::SelfTestedIsa(DetectIsa());
  out.rates = MeasureMachine(timing);
  out.product_peak = PeakOf(out.product_isa, out.rates);
  if (Wanted(options, "cvm")) {
    TALARIA_ASSIGN_OR_RETURN(Series series, MeasureCvmSeries(options, out, timing));
    out.series.push_back(std::move(series));
  }
  if (Wanted(options, "product")) {
    TALARIA_ASSIGN_OR_RETURN(Series series, MeasureProductSeries(options, out, timing));
    out.series.push_back(std::move(series));
  }
  if (Wanted(options, "rows")) {
    TALARIA_ASSIGN_OR_RETURN(Series series, MeasureRowsSeries(options, out, timing));
    out.series.push_back(std::move(series));
  }
  if (Wanted(options, "wire")) out.series.push_back(WireSeries(options));
  if (Wanted(options, "context")) {
    TALARIA_ASSIGN_OR_RETURN(Series series, MeasureContextSeries(options));
    out.series.push_back(std::move(series));
  }
  return out;
}

void Print(const Scaling& scaling) {
  const MachineRates& rates = scaling.rates;
  std::printf("One core, best run: reads %.1f GB/s, %.2f GHz, masks with %s",
              rates.read_gb_per_second.max, rates.clock_ghz.max,
              std::string(IsaName(scaling.isa)).c_str());
  if (rates.ifma_per_ns.median > 0) std::printf(" (%.1f vpmadd52 a ns)", rates.ifma_per_ns.max);
  std::printf(", products with %s", std::string(IsaName(scaling.product_isa)).c_str());
  if (scaling.product_peak > 0)
    std::printf(" (at most %.0f products of int8 a ns)", scaling.product_peak);
  std::printf(".\n");
  for (const Series& series : scaling.series) {
    std::printf("\n%s: %s\n%8s", series.name.c_str(), series.setting.c_str(),
                series.x_name.c_str());
    if (series.points.empty()) continue;
    for (const Measured& m : series.points[0].second) {
      std::printf(" %20s", m.name.c_str());
      if (m.bound > 0) std::printf(" %10s", "bound");
    }
    std::printf("\n");
    for (const auto& [x, values] : series.points) {
      std::printf("%8.0f", x);
      for (const Measured& m : values) {
        std::printf(" %20.4g", m.value.median);
        if (m.bound > 0) std::printf(" %10.4g", m.bound);
      }
      std::printf("\n");
    }
  }
}

}  // namespace talaria::bench
