// What the commands of talaria-cloud do, apart from how their options are read.
#ifndef APPS_CLOUD_COMMANDS_H_
#define APPS_CLOUD_COMMANDS_H_

#include <string>

#include "talaria/base/result.h"
#include "talaria/cloud/provision.h"
#include "talaria/cloud/server.h"

namespace talaria {

// Each prints its result on standard output, as JSON if wanted, and progress on standard error.
Status RunProvision(cloud::ProvisionOptions options,
                    bool json);  // SIGINT, SIGTERM: kCancelled, nothing left behind
Status RunInspect(const std::string& store, bool json);
Status RunVerify(const std::string& store, bool json);
Status RunServe(const cloud::ServerOptions& options);  // until SIGINT or SIGTERM

}  // namespace talaria

#endif  // APPS_CLOUD_COMMANDS_H_
