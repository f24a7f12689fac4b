#include "talaria/client/receipt_copy.h"

#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "talaria/base/file.h"

namespace talaria::client {
namespace {

constexpr size_t kSaltFileBytes = 65;
constexpr std::array<const char*, 4> kNames = {"request", "response", "salt", "receipt"};

Status FromErrno(const std::string& path) {
  const int error = errno;
  const Code code = error == ENOSPC || error == EDQUOT ? Code::kResourceExhausted : Code::kIo;
  return Status(code, path + ": " + std::strerror(error));
}

Status WriteFile(const std::string& path, Bytes bytes) {
  TALARIA_ASSIGN_OR_RETURN(const Fd file, CreateFile(path));
  if (fchmod(file.get(), 0600) != 0) return FromErrno(path);
  if (Status status = WriteAt(file, 0, bytes); !status.ok()) return status.Annotate(path);
  return Sync(file);
}

Status WriteAll(const ReceiptCopy& copy, const std::string& folder) {
  TALARIA_RETURN_IF_ERROR(WriteFile(folder + "/request", AsBytes(copy.request)));
  TALARIA_RETURN_IF_ERROR(WriteFile(folder + "/response", AsBytes(copy.response)));
  TALARIA_RETURN_IF_ERROR(WriteFile(folder + "/salt", AsBytes(ToHex(Bytes(copy.salt)) + "\n")));
  TALARIA_RETURN_IF_ERROR(WriteFile(folder + "/receipt", attest::Encode(copy.receipt)));
  return SyncDirectory(folder);
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Status MakeCopiesFolder(const std::string& folder) {
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return FromErrno(folder);
  struct stat info {};
  if (stat(folder.c_str(), &info) != 0) return FromErrno(folder);
  if (!S_ISDIR(info.st_mode)) return Status(Code::kIo, folder + ": this is not a folder");
  if (access(folder.c_str(), W_OK | X_OK) != 0) return FromErrno(folder);
  return OkStatus();
}

Result<std::string> NewCopyName() {
  std::array<uint8_t, 8> number;
  if (getrandom(number.data(), number.size(), 0) != static_cast<ssize_t>(number.size()))
    return Status(Code::kInternal, "getrandom gave no name");
  const time_t now = std::time(nullptr);
  tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> stamp;
  const size_t size = std::strftime(stamp.data(), stamp.size(), "%Y%m%dT%H%M%SZ-", &utc);
  return std::string(stamp.data(), size) + ToHex(number);
}

Status SaveCopy(const ReceiptCopy& copy, const std::string& folder) {
  const std::string part = folder + ".part";
  if (mkdir(part.c_str(), 0700) != 0) return FromErrno(part);
  Status status = WriteAll(copy, part);
  // Takes the place of an empty folder, and of nothing else.
  if (status.ok() && rename(part.c_str(), folder.c_str()) != 0) status = FromErrno(folder);
  if (status.ok()) return SyncDirectory(ParentOf(folder));
  for (const char* name : kNames) (void)unlink((part + "/" + name).c_str());
  (void)rmdir(part.c_str());
  return status;
}

Result<ReceiptCopy> LoadCopy(const std::string& folder) {
  TALARIA_ASSIGN_OR_RETURN(const auto salt_text, ReadFile(folder + "/salt", kSaltFileBytes));
  std::string hex(salt_text.begin(), salt_text.end());
  if (hex.ends_with('\n')) hex.pop_back();
  attest::Salt salt;
  if (!FromHex(hex, salt)) {
    return Status(Code::kInvalidArgument,
                  folder + "/salt: this is not 64 lower-case hexadecimal digits");
  }
  TALARIA_ASSIGN_OR_RETURN(const auto request, ReadFile(folder + "/request", kMaxReceiptBodyBytes));
  TALARIA_ASSIGN_OR_RETURN(const auto response,
                           ReadFile(folder + "/response", kMaxReceiptBodyBytes));
  TALARIA_ASSIGN_OR_RETURN(const auto bytes,
                           ReadFile(folder + "/receipt", attest::kMaxReceiptBytes));
  TALARIA_ASSIGN_OR_RETURN(attest::Receipt receipt, attest::DecodeReceipt(bytes));
  return ReceiptCopy{
      salt, {request.begin(), request.end()}, {response.begin(), response.end()}, receipt};
}

}  // namespace talaria::client
