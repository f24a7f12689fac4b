// `talaria receipt`: a folder with four files, so that the bytes are exact and can be looked at.
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "apps/client_commands.h"
#include "talaria/attest/receipt_verifier.h"
#include "talaria/base/file.h"
#include "talaria/base/log.h"
#include "talaria/client/receipt_exchange.h"
#include "talaria/client/verdict_text.h"

namespace talaria {
namespace {

constexpr int kConnectTimeoutMs = 120'000;
constexpr uint64_t kMaxRequestBytes = 64 << 20;

Result<attest::Verdict> Judge(const client::ReceiptCopy& copy, const PeerArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(const attest::Verifier verifier, MakeVerifier(arguments));
  return attest::VerifyReceipt(copy.receipt,
                               {copy.salt, AsBytes(copy.request), AsBytes(copy.response)}, verifier,
                               std::time(nullptr));
}

}  // namespace

Status RunReceiptGet(const PeerArguments& arguments, const ReceiptArguments& receipt) {
  TALARIA_ASSIGN_OR_RETURN(const auto peer, MakePeer(arguments));
  TALARIA_ASSIGN_OR_RETURN(const std::string token, ReadToken(arguments.token_file));
  TALARIA_ASSIGN_OR_RETURN(const auto body, ReadFile(receipt.request, kMaxRequestBytes));
  // Before anything is asked: an answer that cannot be kept would be paid for in vain.
  if (mkdir(receipt.folder.c_str(), 0700) != 0)
    return Status(Code::kIo, receipt.folder + ": " + std::strerror(errno));
  const auto copy = client::FetchReceipt(
      {.path = receipt.path, .body = {body.begin(), body.end()}, .token = token}, *peer,
      client::After(kConnectTimeoutMs));
  const Status status = copy.ok() ? client::SaveCopy(*copy, receipt.folder) : copy.status();
  if (!status.ok()) {
    (void)std::remove(receipt.folder.c_str());
    return status;
  }
  std::printf("%s\n", receipt.folder.c_str());
  return OkStatus();
}

Status RunReceiptVerify(const PeerArguments& arguments, const std::string& folder, bool json) {
  const auto copy = client::LoadCopy(folder);
  const auto verdict = copy.ok() ? Judge(*copy, arguments) : Result<attest::Verdict>(copy.status());
  if (!verdict.ok()) {
    // What is no refusal (no such file, a bad policy) is told as everywhere.
    if (json) {
      std::printf("%s\n", client::RefusalJson(verdict.status(), folder).c_str());
    } else if (verdict.status().code() == Code::kUntrusted) {
      std::printf("NOT TRUSTED           %s\nreason                %s\n", folder.c_str(),
                  std::string(verdict.status().message()).c_str());
    }
    return verdict.status();
  }
  const std::string text = json ? client::ReceiptJson(copy->receipt, *verdict, folder) + "\n"
                                : client::ReceiptText(copy->receipt, *verdict, folder);
  std::fputs(text.c_str(), stdout);
  if (verdict->type == attest::EvidenceType::kSimulated || verdict->context.development)
    LogWarning(client::kDevelopmentWarning);
  return OkStatus();
}

}  // namespace talaria
