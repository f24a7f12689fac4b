#include "bench/library_product.h"

namespace talaria::bench {

Result<LibraryProduct> PrepareLibraryProduct(size_t, size_t, size_t, size_t) {
  return Status(Code::kUnsupported,
                "oneDNN not found at build time (install Debian's libdnnl-dev, configure again)");
}

}  // namespace talaria::bench
