#include "talaria/gemm/cuda/testing/ptx.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <deque>
#include <sstream>

namespace talaria::gemm::cuda::testing {

// A register, a number, or memory at a register or at nothing, plus an offset.
struct PtxOperand {
  enum class Kind { kRegister, kNumber, kThread, kBlock } kind = Kind::kNumber;
  size_t slot = 0;
  uint64_t number = 0;
};

struct PtxInstruction {
  std::string text;                // as it stands, for messages
  std::vector<std::string> words;  // the operation's parts: mul, wide, u32
  int guard = -1;                  // the slot of its predicate
  bool guard_negated = false;
  std::vector<PtxOperand> operands;
  size_t target = 0;  // of a branch: an index into the code
};

namespace {

// Where a block's shared memory and a kernel's parameters begin. Not zero, as on hardware.
constexpr uint64_t kSharedBase = 1024, kParameterBase = 0x160;
constexpr size_t kWarp = 32;

[[noreturn]] void Fail(const std::string& what, const PtxInstruction& at) {
  throw PtxError(what + ": " + at.text);
}

// "u32" and the like.
struct Type {
  char kind;  // u, s, b or p (predicate)
  uint32_t bits;
};
Type TypeOf(const std::string& word, const PtxInstruction& at) {
  if (word == "pred") return {'p', 1};
  Type type{word.empty() ? ' ' : word[0], 0};
  if (word.size() > 1) std::from_chars(word.data() + 1, word.data() + word.size(), type.bits);
  if (std::string_view("usb").find(type.kind) == std::string_view::npos || type.bits % 8 != 0 ||
      type.bits == 0 || type.bits > 64)
    Fail("unknown type " + word, at);
  return type;
}
uint64_t Cut(uint64_t value, Type type) {
  return type.bits == 64 ? value : value & ((uint64_t{1} << type.bits) - 1);
}
// As a number of the type, sign and all.
int64_t Signed(uint64_t value, Type type) {
  const uint32_t shift = 64 - type.bits;
  return type.kind == 's' ? static_cast<int64_t>(value << shift) >> shift
                          : static_cast<int64_t>(Cut(value, type));
}

std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    out.push_back(Trimmed(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

class Reader {
 public:
  explicit Reader(const std::string& text) : in_(text) {}

  std::vector<PtxKernel> Read() {
    std::vector<PtxKernel> kernels;
    std::string line;
    while (Next(line)) {
      if (line.starts_with(".extern .shared")) {
        shared_ = line.substr(line.rfind(' ') + 1);
        shared_ = shared_.substr(0, shared_.find('['));
      } else if (line.find(".entry ") != std::string::npos) {
        kernels.push_back(ReadKernel(line));
      }
    }
    return kernels;
  }

 private:
  // Without comments; never empty.
  bool Next(std::string& line) {
    while (std::getline(in_, line)) {
      line = Trimmed(std::string_view(line).substr(0, line.find("//")));
      if (!line.empty()) return true;
    }
    return false;
  }

  PtxKernel ReadKernel(const std::string& head) {
    PtxKernel kernel;
    slots_.clear();
    labels_.clear();
    parameters_.clear();
    code_ = 0;
    const size_t name = head.find(".entry ") + 7;
    kernel.name = head.substr(name, head.find('(') - name);
    uint64_t offset = 0;
    std::string line;
    while (Next(line) && line != "{") {
      if (line.starts_with(".param")) ReadParameter(line, kernel, offset);
      if (line.starts_with(".maxntid")) kernel.threads = Number(line.substr(9));
    }
    while (Next(line) && line != "}") {
      if (line.starts_with(".reg") || line.starts_with(".loc")) continue;
      if (line.ends_with(":")) {
        labels_[line.substr(0, line.size() - 1)] = kernel.code.size();
      } else {
        kernel.code.push_back(ReadInstruction(line));
      }
    }
    for (auto& [index, label] : branches_) {
      if (!labels_.contains(label)) Fail("no such label", kernel.code[index]);
      kernel.code[index].target = labels_[label];
    }
    branches_.clear();
    kernel.registers = slots_.size();
    return kernel;
  }

  // ".param .u64 NAME," or ".param .align 8 .b8 NAME[40]"
  void ReadParameter(std::string line, PtxKernel& kernel, uint64_t& offset) {
    if (line.ends_with(",")) line.pop_back();
    const std::vector<std::string> words = Split(line, ' ');
    std::string name = words.back();
    uint64_t bytes = 0, alignment = 0;
    if (const size_t bracket = name.find('['); bracket != std::string::npos) {
      bytes = Number(name.substr(bracket + 1));
      alignment = Number(words.at(2));
      name.resize(bracket);
    } else {
      bytes = alignment = Number(words.at(1).substr(2)) / 8;
    }
    offset = (offset + alignment - 1) / alignment * alignment;
    parameters_[name] = kParameterBase + offset;
    offset += bytes;
    kernel.parameter_bytes.push_back(static_cast<uint32_t>(bytes));
  }

  PtxInstruction ReadInstruction(std::string line) {
    PtxInstruction out;
    out.text = line;
    if (!line.ends_with(";")) Fail("not an instruction", out);
    line.pop_back();
    if (line[0] == '@') {
      const size_t end = line.find_first_of(" \t");
      out.guard_negated = line[1] == '!';
      out.guard = static_cast<int>(
          Slot(line.substr(out.guard_negated ? 2 : 1, end - (out.guard_negated ? 2 : 1))));
      line = Trimmed(std::string_view(line).substr(end));
    }
    const size_t end = std::min(line.find_first_of(" \t"), line.size());
    out.words = Split(line.substr(0, end), '.');
    std::string rest = Trimmed(std::string_view(line).substr(end));
    if (out.words[0] == "bra") {
      branches_.emplace_back(code_++, rest);
      return out;
    }
    ++code_;
    std::erase_if(rest, [](char c) { return c == '{' || c == '}'; });
    for (const std::string& operand : Split(rest, ',')) ReadOperand(operand, out);
    return out;
  }

  // "[%rd1+-4]" becomes two operands, the base and the offset.
  void ReadOperand(std::string text, PtxInstruction& out) {
    if (text[0] != '[') return out.operands.push_back(Value(text, out));
    text = text.substr(1, text.size() - 2);
    const size_t plus = text.find('+');
    out.operands.push_back(Value(text.substr(0, plus), out));
    out.operands.push_back(Value(plus == std::string::npos ? "0" : text.substr(plus + 1), out));
  }

  PtxOperand Value(const std::string& text, const PtxInstruction& at) {
    PtxOperand out;
    if (text == "%tid.x") {
      out.kind = PtxOperand::Kind::kThread;
    } else if (text == "%ctaid.x") {
      out.kind = PtxOperand::Kind::kBlock;
    } else if (text[0] == '%') {
      out.kind = PtxOperand::Kind::kRegister;
      out.slot = Slot(text);
    } else if (text == shared_) {
      out.number = kSharedBase;
    } else if (const auto found = parameters_.find(text); found != parameters_.end()) {
      out.number = found->second;
    } else {
      int64_t number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size())
        Fail("unknown operand " + text, at);
      out.number = static_cast<uint64_t>(number);
    }
    return out;
  }

  static uint32_t Number(const std::string& text) {
    uint32_t out = 0;
    std::from_chars(text.data(), text.data() + text.size(), out);
    return out;
  }
  size_t Slot(const std::string& name) { return slots_.emplace(name, slots_.size()).first->second; }

  std::istringstream in_;
  std::string shared_;
  std::map<std::string, size_t> slots_, labels_;
  std::map<std::string, uint64_t> parameters_;
  std::vector<std::pair<size_t, std::string>> branches_;
  size_t code_ = 0;  // instructions of this kernel so far
};

bool Compare(const std::string& how, int64_t a, int64_t b, Type type, const PtxInstruction& at) {
  const bool less = type.kind == 's' ? a < b : static_cast<uint64_t>(a) < static_cast<uint64_t>(b);
  if (how == "eq") return a == b;
  if (how == "ne") return a != b;
  if (how == "lt") return less;
  if (how == "le") return less || a == b;
  if (how == "gt") return !less && a != b;
  if (how == "ge") return !less;
  Fail("unknown comparison", at);
}

}  // namespace

PtxModule::PtxModule(const std::string& text) : kernels_(Reader(text).Read()) {}
PtxModule::~PtxModule() = default;

const PtxKernel& PtxModule::Find(std::string_view part) const {
  const PtxKernel* found = nullptr;
  for (const PtxKernel& kernel : kernels_) {
    if (kernel.name.find(part) == std::string::npos) continue;
    if (found != nullptr) throw PtxError("two kernels have " + std::string(part));
    found = &kernel;
  }
  if (found == nullptr) throw PtxError("no kernel has " + std::string(part));
  return *found;
}

uint8_t* PtxMachine::Global(uint64_t address, size_t bytes, bool write) const {
  auto range = ranges_.upper_bound(address);
  if (range == ranges_.begin()) throw PtxError("an address outside of all memory");
  --range;
  const uint64_t at = address - range->first;
  if (at > range->second.bytes || bytes > range->second.bytes - at)
    throw PtxError("an access " + std::to_string(at) + " bytes into " +
                   std::to_string(range->second.bytes));
  if (address % bytes != 0) throw PtxError("an access that is not aligned");
  if (write && !range->second.writable) throw PtxError("a store to what is only read");
  return reinterpret_cast<uint8_t*>(address);
}

struct PtxMachine::Thread {
  enum class State { kRuns, kAtMma, kAtBarrier, kEnded } state = State::kRuns;
  uint32_t index = 0;
  size_t next = 0;  // instruction
  std::vector<uint64_t> registers;
  struct Copy {
    uint64_t shared, global, bytes;
  };
  std::vector<Copy> uncommitted;
  std::deque<std::vector<Copy>> groups;
};

class PtxMachine::Block {
 public:
  Block(PtxMachine& machine, const PtxKernel& kernel, uint32_t block, uint32_t shared_bytes,
        std::span<const uint8_t> parameters)
      : machine_(machine),
        kernel_(kernel),
        block_(block),
        parameters_(parameters),
        shared_(shared_bytes / 8 + 1),
        shared_bytes_(shared_bytes),
        threads_(kernel.threads) {
    for (uint64_t& word : shared_) word = machine_.Random();
    for (uint32_t i = 0; i < threads_.size(); ++i) {
      threads_[i].index = i;
      threads_[i].registers.resize(kernel.registers);
      for (uint64_t& value : threads_[i].registers) value = machine_.Random();
    }
  }

  void Run() {
    while (
        std::ranges::any_of(threads_, [](const Thread& t) { return t.state != State::kEnded; })) {
      const size_t warps = threads_.size() / kWarp, first = machine_.Random() % warps;
      bool moved = false;
      for (size_t i = 0; i < warps; ++i) moved |= RunWarp((first + i) % warps * kWarp);
      if (moved) continue;
      for (Thread& thread : threads_) {
        if (thread.state == State::kAtMma) throw PtxError("a warp is not whole at an mma");
        if (thread.state == State::kAtBarrier) thread.state = State::kRuns;
      }
    }
  }

 private:
  using State = Thread::State;

  // Until each of its threads waits for others; a random while at a time. False: all waited
  // already.
  bool RunWarp(size_t first) {
    const std::span<Thread> warp = std::span(threads_).subspan(first, kWarp);
    bool moved = false;
    for (size_t steps = 1 + machine_.Random() % 4; steps > 0; --steps) {
      for (Thread& thread : warp) {
        while (thread.state == State::kRuns) {
          Step(thread);
          moved = true;
        }
      }
      if (std::ranges::any_of(warp, [&](const Thread& t) {
            return t.state != State::kAtMma || t.next != warp[0].next;
          }))
        break;
      Mma(warp);
      moved = true;
    }
    return moved;
  }

  uint64_t Read(const Thread& thread, const PtxOperand& operand) const {
    switch (operand.kind) {
      case PtxOperand::Kind::kRegister:
        return thread.registers[operand.slot];
      case PtxOperand::Kind::kThread:
        return thread.index;
      case PtxOperand::Kind::kBlock:
        return block_;
      case PtxOperand::Kind::kNumber:
        break;
    }
    return operand.number;
  }

  uint8_t* Shared(uint64_t address, size_t bytes) {
    const uint64_t at = address - kSharedBase;
    if (address < kSharedBase || at > shared_bytes_ || bytes > shared_bytes_ - at)
      throw PtxError("an access outside of shared memory");
    if (address % bytes != 0) throw PtxError("an access that is not aligned");
    return reinterpret_cast<uint8_t*>(shared_.data()) + at;
  }

  void DoCopy(const Thread::Copy& copy) {
    uint8_t* const to = Shared(copy.shared, 16);
    std::memset(to, 0, 16);
    if (copy.bytes != 0) std::memcpy(to, machine_.Global(copy.global, 16, false), copy.bytes);
  }

  void Step(Thread& thread) {
    const PtxInstruction& at = kernel_.code.at(thread.next);
    if (at.guard >= 0 &&
        ((thread.registers[static_cast<size_t>(at.guard)] & 1) != 0) == at.guard_negated) {
      ++thread.next;
      return;
    }
    const std::string& operation = at.words[0];
    if (operation == "bra") {
      thread.next = at.target;
    } else if (operation == "ret") {
      thread.state = State::kEnded;
    } else if (operation == "mma") {
      thread.state = State::kAtMma;
    } else if (operation == "bar") {
      thread.state = State::kAtBarrier;
      ++thread.next;
    } else {
      ++thread.next;
      try {
        if (operation == "cp") {
          Asynchronous(thread, at);
        } else if (operation == "ld" || operation == "st") {
          Memory(thread, at);
        } else {
          Arithmetic(thread, at);
        }
      } catch (const PtxError& e) {
        throw PtxError(std::string(e.what()) + ", thread " + std::to_string(thread.index) +
                       " of block " + std::to_string(block_) + ", " + at.text);
      }
    }
  }

  // cp.async.cg.shared.global [to], [from], 16, bytes; commit_group; wait_group.
  void Asynchronous(Thread& thread, const PtxInstruction& at) {
    const auto operand = [&](size_t i) { return Read(thread, at.operands.at(i)); };
    if (at.words.at(2) == "commit_group") {
      thread.groups.push_back(std::move(thread.uncommitted));
      thread.uncommitted.clear();
    } else if (at.words.at(2) == "wait_group") {
      while (thread.groups.size() > operand(0)) {
        for (const Thread::Copy& copy : thread.groups.front()) DoCopy(copy);
        thread.groups.pop_front();
      }
    } else if (at.words.at(2) == "cg" && operand(4) == 16) {
      const uint64_t bytes = Cut(operand(5), {'u', 32});
      if (bytes > 16) Fail("more than 16 bytes", at);
      const Thread::Copy copy{Cut(operand(0), {'u', 32}) + operand(1), operand(2) + operand(3),
                              bytes};
      if (machine_.Random() % 2 == 0) DoCopy(copy);
      thread.uncommitted.push_back(copy);  // again, when it is waited for: the last moment
    } else {
      Fail("unknown instruction", at);
    }
  }

  // ld.SPACE[.vN].TYPE registers, [base+offset] and st.SPACE[.vN].TYPE [base+offset], registers.
  void Memory(Thread& thread, const PtxInstruction& at) {
    const bool load = at.words[0] == "ld", vector = at.words.at(2)[0] == 'v';
    const size_t count = vector ? static_cast<size_t>(at.words[2].at(1) - '0') : 1;
    const Type type = TypeOf(at.words.back(), at);
    if (at.operands.size() != count + 2 || at.words.size() != (vector ? 4u : 3u))
      Fail("unknown instruction", at);
    const size_t base = load ? count : 0, bytes = type.bits / 8;
    uint64_t address = Read(thread, at.operands[base]) + Read(thread, at.operands[base + 1]);
    uint8_t* data = nullptr;
    if (at.words[1] == "global") {
      data = machine_.Global(address, bytes * count, !load);
    } else if (at.words[1] == "shared") {
      data = Shared(Cut(address, {'u', 32}), bytes * count);
    } else if (at.words[1] == "param" && load) {
      address -= kParameterBase;
      if (address > parameters_.size() || bytes * count > parameters_.size() - address)
        Fail("outside of the parameters", at);
      data = const_cast<uint8_t*>(parameters_.data()) + address;
    } else {
      Fail("unknown instruction", at);
    }
    for (size_t i = 0; i < count; ++i, data += bytes) {
      if (load) {
        uint64_t value = 0;
        std::memcpy(&value, data, bytes);
        thread.registers[at.operands[i].slot] =
            Cut(static_cast<uint64_t>(Signed(value, type)), {'u', std::max(type.bits, 32u)});
      } else {
        const uint64_t value = Read(thread, at.operands[i + 2]);
        std::memcpy(data, &value, bytes);
      }
    }
  }

  void Arithmetic(Thread& thread, const PtxInstruction& at) {
    const std::vector<std::string>& words = at.words;
    const std::string& operation = words[0];
    const auto raw = [&](size_t i) { return Read(thread, at.operands.at(i)); };
    const Type type = operation == "cvta" ? Type{'u', 64} : TypeOf(words.back(), at);
    // Of the second operand on; the first is the result.
    const auto a = [&](size_t i) { return Signed(raw(i), type); };
    const auto u = [&](size_t i) { return static_cast<uint64_t>(a(i)); };
    const auto store = [&](uint64_t value, Type as) {
      thread.registers[at.operands.at(0).slot] = Cut(value, as);
    };
    const auto shift = [&](uint64_t most) { return std::min(Cut(raw(2), {'u', 32}), most); };
    if (operation == "mov") return store(u(1), type);
    if (operation == "cvta" && words.at(2) == "global") return store(raw(1), type);
    if (operation == "add") return store(u(1) + u(2), type);
    if (operation == "sub") return store(u(1) - u(2), type);
    if (operation == "and") return store(u(1) & u(2), type);
    if (operation == "or") return store(u(1) | u(2), type);
    if (operation == "xor") return store(u(1) ^ u(2), type);
    if (operation == "not") return store(~u(1), type);
    if (operation == "neg") return store(0 - u(1), type);
    if (operation == "shl")
      return store(shift(type.bits) == type.bits ? 0 : u(1) << shift(type.bits), type);
    if (operation == "shr" && type.kind == 's')
      return store(static_cast<uint64_t>(a(1) >> shift(type.bits - 1)), type);
    if (operation == "shr")
      return store(shift(type.bits) == type.bits ? 0 : u(1) >> shift(type.bits), type);
    if (operation == "mul" && words.at(1) == "lo") return store(u(1) * u(2), type);
    if (operation == "mul" && words.at(1) == "wide")
      return store(u(1) * u(2), {'u', 2 * type.bits});
    if (operation == "mad" && words.at(1) == "lo") return store(u(1) * u(2) + u(3), type);
    if (operation == "mad" && words.at(1) == "wide")
      return store(u(1) * u(2) + raw(3), {'u', 2 * type.bits});
    if ((operation == "div" || operation == "rem") && type.kind == 'u') {
      if (u(2) == 0) Fail("a division by zero", at);
      return store(operation == "div" ? u(1) / u(2) : u(1) % u(2), type);
    }
    if (operation == "min" || operation == "max") {
      const bool less = Compare("lt", a(1), a(2), type, at);
      return store(less == (operation == "min") ? u(1) : u(2), type);
    }
    if (operation == "setp" && words.size() == 3)
      return store(Compare(words[1], a(1), a(2), type, at) ? 1 : 0, {'p', 1});
    if (operation == "selp") return store((raw(3) & 1) != 0 ? u(1) : u(2), type);
    // cvt.TO.FROM
    if (operation == "cvt" && words.size() == 3) return store(u(1), TypeOf(words[1], at));
    // bfi result, inserted, into, position, length
    if (operation == "bfi") {
      const uint64_t length = Cut(raw(4), {'u', 32}), position = Cut(raw(3), {'u', 32});
      if (position >= type.bits || length == 0 || length > type.bits - position)
        Fail("a field past the end", at);
      const uint64_t mask = Cut(~uint64_t{0}, {'u', static_cast<uint32_t>(length)}) << position;
      return store((u(2) & ~mask) | (u(1) << position & mask), type);
    }
    Fail("unknown instruction", at);
  }

  // m16n8k32, s8 times u8: PTX ISA, "Matrix Fragments for mma.m16n8k32". Registers: four of D, four
  // of A, two of B, four of C.
  void Mma(std::span<Thread> warp) {
    const PtxInstruction& at = kernel_.code[warp[0].next];
    if (at.text.find("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 ") == std::string::npos ||
        at.operands.size() != 14)
      Fail("unknown instruction", at);
    std::array<std::array<int32_t, 32>, 16> a{};
    std::array<std::array<int32_t, 8>, 32> b{};
    const auto byte = [&](size_t lane, size_t operand, size_t i) {
      return static_cast<uint8_t>(Read(warp[lane], at.operands[operand]) >> (8 * i));
    };
    for (size_t lane = 0; lane < kWarp; ++lane) {
      const size_t group = lane / 4, in_group = lane % 4;
      for (size_t i = 0; i < 16; ++i) {
        const size_t row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
        a[row][in_group * 4 + i % 4 + (i >= 8 ? 16 : 0)] =
            static_cast<int8_t>(byte(lane, 4 + i / 4, i % 4));
      }
      for (size_t i = 0; i < 8; ++i)
        b[in_group * 4 + i % 4 + (i >= 4 ? 16 : 0)][group] = byte(lane, 8 + i / 4, i % 4);
    }
    for (size_t lane = 0; lane < kWarp; ++lane) {
      std::array<uint32_t, 4> sums{};
      for (size_t i = 0; i < 4; ++i) {
        const size_t row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + i % 2;
        sums[i] = static_cast<uint32_t>(Read(warp[lane], at.operands[10 + i]));
        for (size_t k = 0; k < 32; ++k) sums[i] += static_cast<uint32_t>(a[row][k] * b[k][column]);
      }
      for (size_t i = 0; i < 4; ++i) warp[lane].registers[at.operands[i].slot] = sums[i];
    }
    for (Thread& thread : warp) {
      thread.state = State::kRuns;
      ++thread.next;
    }
  }

  PtxMachine& machine_;
  const PtxKernel& kernel_;
  const uint32_t block_;
  const std::span<const uint8_t> parameters_;
  std::vector<uint64_t> shared_;
  const uint32_t shared_bytes_;
  std::vector<Thread> threads_;
};

void PtxMachine::Launch(const PtxKernel& kernel, uint32_t blocks, uint32_t shared_bytes,
                        const std::vector<Argument>& arguments) {
  if (arguments.size() != kernel.parameter_bytes.size()) throw PtxError("other parameters");
  std::vector<uint8_t> parameters;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].size() != kernel.parameter_bytes[i])
      throw PtxError("parameter " + std::to_string(i) + " is of another size");
    const size_t alignment = std::min<size_t>(arguments[i].size(), 8);
    parameters.resize((parameters.size() + alignment - 1) / alignment * alignment);
    parameters.insert(parameters.end(), arguments[i].begin(), arguments[i].end());
  }
  for (uint32_t block = 0; block < blocks; ++block)
    Block(*this, kernel, block, shared_bytes, parameters).Run();
}

}  // namespace talaria::gemm::cuda::testing
