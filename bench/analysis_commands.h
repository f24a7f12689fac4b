// The sub-commands that compare, extrapolate and advise: compare, scaling, plan.
#ifndef TALARIA_BENCH_ANALYSIS_COMMANDS_H_
#define TALARIA_BENCH_ANALYSIS_COMMANDS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace talaria::bench {

struct Setting;

class AnalysisCommands {
 public:
  // Adds the sub-commands; `app` and `setting` must outlive this object.
  AnalysisCommands(CLI::App& app, Setting& setting);
  ~AnalysisCommands();
  AnalysisCommands(const AnalysisCommands&) = delete;
  AnalysisCommands& operator=(const AnalysisCommands&) = delete;
  bool parsed() const;
  int Run();  // the exit code

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_ANALYSIS_COMMANDS_H_
