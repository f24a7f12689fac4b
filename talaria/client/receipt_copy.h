// A user's copies of what was proven to them: a folder for each answer, with the files request,
// response, salt and receipt (doc/attestation.md, "Receipts").
#ifndef TALARIA_CLIENT_RECEIPT_COPY_H_
#define TALARIA_CLIENT_RECEIPT_COPY_H_

#include <string>

#include "talaria/attest/receipt.h"

namespace talaria::client {

inline constexpr size_t kMaxReceiptBodyBytes = 64 << 20;  // of a request or an answer

// All that a third party needs, and the one place that has the salt.
struct ReceiptCopy {
  attest::Salt salt;
  std::string request, response;  // the bodies as they were in HTTP, chunks put together
  attest::Receipt receipt;
};

// A folder for copies: made with mode 0700 if it is not there. kIo: it is none, or not ours to
// write in.
Status MakeCopiesFolder(const std::string& folder);
// For the next copy: the time and a random number. kInternal: the system gave none.
Result<std::string> NewCopyName();

// All four files, mode 0600, in `folder`, which is not there yet or is empty; or nothing: they are
// written to FOLDER.part, made durable, and renamed. kResourceExhausted: the disk is full; kIo.
Status SaveCopy(const ReceiptCopy& copy, const std::string& folder);
// Nothing in it is verified. kInvalidArgument, kNotFound, kIo, kResourceExhausted; kUntrusted:
// those of attest::DecodeReceipt.
Result<ReceiptCopy> LoadCopy(const std::string& folder);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_RECEIPT_COPY_H_
