// The skeleton is untrusted until its digest fits, so it lies in memory that no parser has seen,
// and is sealed before anyone gets it: neither this process nor llama-server can change what was
// checked.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "talaria/cvm/setup_parts.h"

namespace talaria::cvm::internal {
namespace {

constexpr size_t kStepBytes = size_t{4} << 20;

}  // namespace

Result<Fd> FetchSkeleton(CloudLink& link, const model::Manifest& manifest, const Advance& advance) {
  Fd fd(memfd_create("talaria-skeleton", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ftruncate(fd.get(), static_cast<off_t>(manifest.skeleton_bytes)) != 0) {
    return Status(Code::kResourceExhausted,
                  "no memory file for the skeleton: " + std::string(std::strerror(errno)));
  }
  Sha256 hash;
  std::vector<uint8_t> buffer;
  uint64_t position = 0;  // in the file
  uint64_t fetched = 0;   // in the stream, which leaves the holes out
  const auto copy_until = [&](uint64_t end) -> Status {
    while (position < end) {
      buffer.resize(static_cast<size_t>(std::min<uint64_t>(kStepBytes, end - position)));
      TALARIA_RETURN_IF_ERROR(link.Fetch({model::StreamKind::kSkeleton, 0}, fetched, buffer));
      hash.Update(buffer);
      TALARIA_RETURN_IF_ERROR(WriteAt(fd, position, buffer));
      position += buffer.size();
      fetched += buffer.size();
      advance(buffer.size());
    }
    return OkStatus();
  };
  for (const model::Hole& hole :
       manifest.holes) {  // sorted, disjoint, inside: DecodeManifest saw to it
    TALARIA_RETURN_IF_ERROR(copy_until(hole.offset));
    position = hole.offset + hole.bytes;
  }
  TALARIA_RETURN_IF_ERROR(copy_until(manifest.skeleton_bytes));
  if (hash.Finish() != manifest.skeleton) return Refused("digest of the skeleton");
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return Status(Code::kIo, "the skeleton cannot be sealed: " + std::string(std::strerror(errno)));
  }
  return fd;
}

}  // namespace talaria::cvm::internal
