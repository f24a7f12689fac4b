// A row of a mask is used once: its ticket can be handed on, not copied.
// expects: use of deleted function|call to deleted|implicitly-deleted
#include <utility>

#include "talaria/cvm/mask_source.h"

talaria::cvm::RowTicket Give(talaria::cvm::RowTicket ticket) {
#ifdef TALARIA_FORBIDDEN
  talaria::cvm::RowTicket copy = ticket;
#endif
  return talaria::cvm::RowTicket(std::move(ticket));
}
