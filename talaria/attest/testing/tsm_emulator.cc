#include "talaria/attest/testing/tsm_emulator.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

namespace talaria::attest {
namespace {

Status Failed(const std::string& what) {
  return Status(Code::kIo, what + ": " + std::strerror(errno));
}

}  // namespace

Result<std::unique_ptr<TsmEmulator>> TsmEmulator::Start(const std::string& parent,
                                                        Options options) {
  std::unique_ptr<TsmEmulator> made(new TsmEmulator(std::move(options)));
  std::string folder = parent + "/tsm-XXXXXX";
  if (!mkdtemp(folder.data())) return Failed(folder);
  made->folder_ = folder;
  made->root_ = folder + "/report";
  made->staging_ = folder + "/staged";
  made->inotify_ = Fd(inotify_init1(IN_CLOEXEC));
  made->stop_ = Fd(eventfd(0, EFD_CLOEXEC));
  if (mkdir(made->root_.c_str(), 0700) != 0 || !made->inotify_.valid() || !made->stop_.valid()) {
    return Failed(folder);
  }
  made->root_watch_ = inotify_add_watch(made->inotify_.get(), made->root_.c_str(), IN_CREATE);
  if (made->root_watch_ < 0) return Failed("inotify_add_watch");
  made->thread_ = std::thread([emulator = made.get()] { emulator->Run(); });
  return made;
}

TsmEmulator::~TsmEmulator() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    TALARIA_CHECK(write(stop_.get(), &one, sizeof one) == sizeof one);
    thread_.join();
  }
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

void TsmEmulator::Run() {
  alignas(inotify_event) char buffer[16 << 10];
  for (;;) {
    pollfd ready[] = {{inotify_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) return;
    if (ready[1].revents != 0) return;
    if ((ready[0].revents & POLLIN) == 0) continue;
    const ssize_t size = read(inotify_.get(), buffer, sizeof buffer);
    for (ssize_t at = 0; at < size;) {
      inotify_event event;
      std::memcpy(&event, buffer + at, sizeof event);
      const char* name = event.len > 0 ? buffer + at + sizeof event : "";
      at += static_cast<ssize_t>(sizeof event + event.len);
      const auto entry = entries_.find(event.wd);
      if (event.wd == root_watch_) {
        if ((event.mask & IN_CREATE) != 0 && (event.mask & IN_ISDIR) != 0) Fill(name);
      } else if (entry != entries_.end()) {
        if ((event.mask & IN_IGNORED) != 0) {
          entries_.erase(entry);  // the directory was removed
        } else if ((event.mask & IN_CLOSE_WRITE) != 0 && std::strcmp(name, "inblob") == 0) {
          Serve(entry->second);
        }
      }
    }
  }
}

// By rename, so that a reader sees all of it or nothing, and no write of ours looks like a
// request. Fails when the requester has removed its directory.
bool TsmEmulator::Publish(const Entry& entry, const char* name, Bytes content) {
  {
    (void)unlink(staging_.c_str());
    const Result<Fd> file = CreateFile(staging_);
    if (!file.ok() || !WriteAt(*file, 0, content).ok()) return false;
  }
  return rename(staging_.c_str(), (entry.path + "/" + name).c_str()) == 0;
}

void TsmEmulator::Fill(const std::string& name) {
  const TsmFault fault = requests_++ < options_.faulty_requests ? options_.fault : TsmFault::kNone;
  const Entry entry{root_ + "/" + name, fault, fault == TsmFault::kGenerationFalls ? 7u : 0u};
  if (fault == TsmFault::kNeverFilled) return;
  // Before the requester can write.
  const int watch = inotify_add_watch(inotify_.get(), entry.path.c_str(), IN_CLOSE_WRITE);
  if (watch < 0) return;
  entries_[watch] = entry;
  if (fault != TsmFault::kNoProvider) Publish(entry, "provider", options_.provider);
  Publish(entry, "inblob", "");
  Publish(entry, "outblob", "");
  Publish(
      entry, "generation",
      fault == TsmFault::kGenerationNoNumber ? "many\n" : std::to_string(entry.generation) + "\n");
}

void TsmEmulator::Serve(Entry& entry) {
  if (entry.fault == TsmFault::kRefused) return;
  const auto inblob = ReadFile(entry.path + "/inblob", sizeof(ReportData));
  // Both drivers refuse anything but 64 bytes.
  if (!inblob.ok() || inblob->size() != sizeof(ReportData)) return;
  ReportData asked;
  std::ranges::copy(*inblob, asked.begin());
  if (entry.fault == TsmFault::kStaleOutblob) asked[63] ^= 1;
  std::this_thread::sleep_for(options_.delay);

  Answer answer = options_.answer(asked);
  switch (entry.fault) {
    case TsmFault::kEmptyOutblob:
      answer.outblob.clear();
      break;
    case TsmFault::kShortOutblob:
      answer.outblob.pop_back();
      break;
    case TsmFault::kLongOutblob:
      answer.outblob.resize(kMaxReportBytes + 1);
      break;
    case TsmFault::kLongAuxblob:
      answer.auxblob.emplace(kMaxCertificatesBytes + 1);
      break;
    default:
      break;
  }
  if (entry.fault == TsmFault::kGenerationFalls) {
    --entry.generation;
  } else {
    entry.generation += entry.fault == TsmFault::kGenerationJumps ? 2 : 1;
  }
  Publish(entry, "outblob", answer.outblob);
  if (answer.auxblob) Publish(entry, "auxblob", *answer.auxblob);
  Publish(entry, "generation", std::to_string(entry.generation) + "\n");
}

}  // namespace talaria::attest
