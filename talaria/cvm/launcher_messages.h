// What the launcher and its parent say to each other, over a socket pair of sequenced packets.
#ifndef TALARIA_CVM_LAUNCHER_MESSAGES_H_
#define TALARIA_CVM_LAUNCHER_MESSAGES_H_

#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/file.h"
#include "talaria/base/result.h"
#include "talaria/cvm/launcher.h"

namespace talaria::cvm {

inline constexpr size_t kMaxLauncherMessage = 128 << 10;
inline constexpr size_t kMaxDescriptors = 16;

enum class LauncherRequest : uint8_t { kStart = 1, kKill = 2 };
enum class LauncherReply : uint8_t {
  kStarted = 1,  // u32 pid, text of warnings
  kFailed = 2,   // u8 code, text
  kExited = 3,   // u32 exit code
};

// A program without its descriptors' own numbers, which travel as SCM_RIGHTS in the same order.
std::vector<uint8_t> EncodeProgram(const ChildProgram& program);
// kCorrupt. The descriptors' first halves are -1.
Result<ChildProgram> DecodeProgram(Bytes data);

// One packet with descriptors. kUnavailable when the peer is gone, kIo.
Status SendPacket(int socket, Bytes data, const std::vector<int>& descriptors);
// Blocks. kUnavailable at the peer's end, kIo.
Result<std::vector<uint8_t>> ReceivePacket(int socket, std::vector<Fd>* descriptors);

// In the launcher process: serves `socket` until its other end is closed. Never returns.
[[noreturn]] void RunLauncher(int socket);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_LAUNCHER_MESSAGES_H_
