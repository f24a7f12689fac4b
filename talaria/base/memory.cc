#include "talaria/base/memory.h"

#include <fstream>
#include <string>

namespace talaria {

uint64_t AvailableMemory() {
  std::ifstream info("/proc/meminfo");
  std::string key;
  uint64_t kib = 0;
  while (info >> key >> kib) {
    if (key == "MemAvailable:") return kib << 10;
    info.ignore(1 << 10, '\n');
  }
  return UINT64_MAX;
}

}  // namespace talaria
