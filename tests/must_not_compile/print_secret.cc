// A secret cannot be written to a stream by accident; its length can.
// expects: no match for .operator<<|invalid operands
#include <ostream>

#include "talaria/base/secret.h"

void Print(std::ostream& out, const talaria::SecretMemory& secret) {
#ifdef TALARIA_FORBIDDEN
  out << secret;
#endif
  out << secret.size();
}
