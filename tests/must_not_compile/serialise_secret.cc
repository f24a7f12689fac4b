// Bytes go into messages through ByteWriter, which takes no secret: who really must, exposes it.
// expects: (cannot convert|no known conversion|could not convert|no matching)
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/secret.h"

void Write(std::vector<uint8_t>& out, const talaria::SecretKey<32>& key) {
  talaria::ByteWriter writer(out);
#ifdef TALARIA_FORBIDDEN
  writer.Raw(key);
#endif
  writer.Raw(key.Expose());
}
