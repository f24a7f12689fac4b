// What an operator of the cloud may look at: every product that it is asked for. Products have
// none; the laboratory's build of the cloud records with it.
#ifndef TALARIA_CLOUD_CALL_OBSERVER_H_
#define TALARIA_CLOUD_CALL_OBSERVER_H_

#include <cstdint>

#include "talaria/base/bytes.h"
#include "talaria/wire/messages.h"

namespace talaria::cloud {

class CallObserver {
 public:
  virtual ~CallObserver() = default;
  // After the request was found valid and before its reply is sent. `planes` is
  // [rows][6][padded inputs]. Connections count from 0 as they are admitted. Any thread.
  virtual void OnMultiply(uint64_t connection, const wire::MultiplyHeader& request,
                          Bytes planes) = 0;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_CALL_OBSERVER_H_
