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
// What --device can take here and, with a store, what each needs for its products.
Status RunDevices(const std::string& store, int threads, bool json);
// Makes the key file if there is none, and prints what CVMs pin.
Status RunKey(const std::string& path, bool json);

// How the channels to CVMs are protected, as the command line says it.
struct ServeSecurity {
  std::string key, policy, collateral;
  bool simulated_tee = false, plaintext = false;
};
// Until SIGINT or SIGTERM.
Status RunServe(cloud::ServerOptions options, const ServeSecurity& security);

}  // namespace talaria

#endif  // APPS_CLOUD_COMMANDS_H_
