// A secret has one owner.
// expects: use of deleted function|call to deleted|implicitly-deleted
#include <utility>

#include "talaria/base/secret.h"

talaria::SecretKey<32> Give(talaria::SecretKey<32> key) {
#ifdef TALARIA_FORBIDDEN
  talaria::SecretKey<32> copy = key;
#endif
  return talaria::SecretKey<32>(std::move(key));
}
