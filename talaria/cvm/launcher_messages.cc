#include "talaria/cvm/launcher_messages.h"

#include <errno.h>
#include <sys/socket.h>

#include <cstring>

namespace talaria::cvm {
namespace {

void Put(ByteWriter& writer, const std::string& text) {
  writer.U32(static_cast<uint32_t>(text.size()));
  writer.Raw(AsBytes(text));
}

std::string Take(ByteReader& reader) {
  const Bytes raw = reader.Raw(reader.U32());
  return std::string(raw.begin(), raw.end());
}

}  // namespace

std::vector<uint8_t> EncodeProgram(const ChildProgram& program) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U8(static_cast<uint8_t>(LauncherRequest::kStart));
  Put(writer, program.path);
  writer.U32(static_cast<uint32_t>(program.arguments.size()));
  for (const std::string& argument : program.arguments) Put(writer, argument);
  writer.U32(static_cast<uint32_t>(program.environment.size()));
  for (const auto& [name, value] : program.environment) {
    Put(writer, name);
    Put(writer, value);
  }
  writer.U32(static_cast<uint32_t>(program.descriptors.size()));
  for (const auto& descriptor : program.descriptors)
    writer.U32(static_cast<uint32_t>(descriptor.second));
  Put(writer, program.working_directory);
  for (const auto* paths : {&program.readable, &program.socket_folders}) {
    writer.U32(static_cast<uint32_t>(paths->size()));
    for (const std::string& path : *paths) Put(writer, path);
  }
  writer.U8(program.keep_output ? 1 : 0);
  writer.U8(program.sandbox ? 1 : 0);
  writer.U8(program.sandbox_policy == SandboxPolicy::kRequire ? 1 : 0);
  return out;
}

Result<ChildProgram> DecodeProgram(Bytes data) {
  ByteReader reader(data);
  ChildProgram program;
  reader.U8();
  program.path = Take(reader);
  for (uint32_t n = reader.U32(); n > 0 && reader.ok(); --n)
    program.arguments.push_back(Take(reader));
  for (uint32_t n = reader.U32(); n > 0 && reader.ok(); --n) {
    std::string name = Take(reader);
    program.environment.emplace_back(std::move(name), Take(reader));
  }
  for (uint32_t n = reader.U32(); n > 0 && reader.ok(); --n)
    program.descriptors.emplace_back(-1, static_cast<int>(reader.U32()));
  program.working_directory = Take(reader);
  for (auto* paths : {&program.readable, &program.socket_folders}) {
    for (uint32_t n = reader.U32(); n > 0 && reader.ok(); --n) paths->push_back(Take(reader));
  }
  program.keep_output = reader.U8() == 1;
  program.sandbox = reader.U8() == 1;
  program.sandbox_policy =
      reader.U8() == 1 ? SandboxPolicy::kRequire : SandboxPolicy::kWarnIfImpossible;
  if (!reader.AtEnd()) return Status(Code::kCorrupt, "launcher: request");
  return program;
}

Status SendPacket(int socket, Bytes data, const std::vector<int>& descriptors) {
  iovec part{const_cast<uint8_t*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
  }
  ssize_t n;
  do {
    n = sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(data.size())) return OkStatus();
  const bool gone = n < 0 && (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN);
  return Status(gone ? Code::kUnavailable : Code::kIo,
                std::string("launcher: ") + std::strerror(errno));
}

Result<std::vector<uint8_t>> ReceivePacket(int socket, std::vector<Fd>* descriptors) {
  std::vector<uint8_t> data(kMaxLauncherMessage);
  iovec part{data.data(), data.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  do {
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0)
    return Status(errno == ECONNRESET ? Code::kUnavailable : Code::kIo,
                  std::string("launcher: ") + std::strerror(errno));
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      Fd owned(fd);
      if (descriptors != nullptr) descriptors->push_back(std::move(owned));
    }
  }
  if (n == 0) return Status(Code::kUnavailable, "launcher: the other end has gone");
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return Status(Code::kCorrupt, "launcher: message too long");
  data.resize(static_cast<size_t>(n));
  return data;
}

}  // namespace talaria::cvm
