#include "fs/tokens/token_messages.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "net/check.h"
#include "net/little_endian.h"

namespace mangrove::fs {
namespace {

// Fields of an entry, beside its object.
enum : uint32_t { kSet = 1, kLent = 2, kNumber = 4, kGrant = 8, kFlag = 16, kValues = 32, kPins = 64 };

constexpr uint32_t kFieldsOf[kTokenMessageKinds] = {
    kSet | kNumber,                                             // Request
    kNumber,                                                    // Cancel
    kSet | kNumber | kGrant | kValues,                          // Return
    kNumber,                                                    // Refuse
    kSet | kLent | kNumber | kGrant | kFlag | kPins | kValues,  // Lend
    kSet | kNumber | kGrant | kValues,                          // Register
    kSet | kNumber | kGrant | kValues,                          // Grant
    kSet | kNumber | kGrant | kFlag,                            // Recall
    kNumber | kGrant | kFlag,                                   // Ack
    kNumber | kFlag | kValues,                                  // GiveBack
    0,                                                          // RegisterAsk
};

constexpr size_t kHeadBytes = 1 + 8 + 4 + 4 + 2;
constexpr uint8_t kFlagBit = 1, kTimesBit = 2, kSizeBit = 4, kPinsBit = 8;

size_t MaxEntryBytes(uint32_t fields) {
  size_t bytes = 16;
  if (fields & kSet) bytes += 4;
  if (fields & kLent) bytes += 4;
  if (fields & kNumber) bytes += 8;
  if (fields & kGrant) bytes += 16;
  if (fields & (kFlag | kValues)) bytes += 1;
  if (fields & kValues) bytes += 64;
  return bytes;
}

template <typename T>
void Put(std::string& out, T value) {
  const size_t at = out.size();
  out.resize(at + sizeof(T));
  StoreLittle(reinterpret_cast<std::byte*>(out.data()) + at, value);
}

class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  template <typename T>
  T Get() {
    good_ = good_ && in_.size() >= sizeof(T);
    if (!good_) return T{0};
    const T value = LoadLittle<T>(reinterpret_cast<const std::byte*>(in_.data()));
    in_.remove_prefix(sizeof(T));
    return value;
  }
  TokenSet GetSet() {
    const auto bits = Get<uint32_t>();
    good_ = good_ && TokenSet::ValidBits(bits);
    return TokenSet::FromBits(bits);
  }
  void Refuse() { good_ = false; }
  bool good() const { return good_; }
  bool AtEnd() const { return in_.empty(); }

 private:
  std::string_view in_;
  bool good_ = true;
};

void PutEntry(std::string& out, const TokenEntry& e, uint32_t fields) {
  Put(out, e.object.inode);
  Put(out, e.object.generation);
  if (fields & kSet) Put(out, e.set.Bits());
  if (fields & kLent) Put(out, e.lent.Bits());
  if (fields & kNumber) Put(out, e.number);
  if (fields & kGrant) {
    Put(out, e.grant.view);
    Put(out, e.grant.count);
  }
  if (fields & (kFlag | kValues)) {
    Put(out, uint8_t(((fields & kFlag) && e.flag ? kFlagBit : 0) | (e.times ? kTimesBit : 0) | (e.size ? kSizeBit : 0) |
                     ((fields & kPins) && e.pins ? kPinsBit : 0)));
  }
  if (e.times) {
    Put(out, uint64_t(e.times->access));
    Put(out, uint64_t(e.times->modify));
    Put(out, uint64_t(e.times->change));
    Put(out, e.times_set.view);
    Put(out, e.times_set.count);
  }
  if (e.size) {
    Put(out, *e.size);
    Put(out, e.size_grant.view);
    Put(out, e.size_grant.count);
  }
}

TokenEntry GetEntry(Reader& in, uint32_t fields) {
  TokenEntry e;
  e.object.inode = in.Get<uint64_t>();
  e.object.generation = in.Get<uint64_t>();
  if (fields & kSet) e.set = in.GetSet();
  if (fields & kLent) e.lent = in.GetSet();
  if (fields & kNumber) e.number = in.Get<uint64_t>();
  if (fields & kGrant) {
    e.grant.view = in.Get<uint64_t>();
    e.grant.count = in.Get<uint64_t>();
  }
  if (!(fields & (kFlag | kValues))) return e;
  const auto bits = in.Get<uint8_t>();
  const int meaning =
      (fields & kFlag ? kFlagBit : 0) | (fields & kValues ? kTimesBit | kSizeBit : 0) | (fields & kPins ? kPinsBit : 0);
  if (bits & ~meaning) in.Refuse();
  e.flag = (bits & kFlagBit) != 0;
  e.pins = (bits & kPinsBit) != 0;
  if (bits & kTimesBit) {
    e.times.emplace();
    e.times->access = int64_t(in.Get<uint64_t>());
    e.times->modify = int64_t(in.Get<uint64_t>());
    e.times->change = int64_t(in.Get<uint64_t>());
    e.times_set.view = in.Get<uint64_t>();
    e.times_set.count = in.Get<uint64_t>();
  }
  if (bits & kSizeBit) {
    e.size = in.Get<uint64_t>();
    e.size_grant.view = in.Get<uint64_t>();
    e.size_grant.count = in.Get<uint64_t>();
  }
  return e;
}

}  // namespace

size_t MaxTokenEntries(TokenMessageKind kind) {
  return (kMaxTokenMessageBytes - kHeadBytes) / MaxEntryBytes(kFieldsOf[int(kind)]);
}

std::string EncodeTokenMessage(const TokenMessage& message) {
  CHECK(message.entries.size() <= MaxTokenEntries(message.kind));
  std::string out;
  Put(out, uint8_t(message.kind));
  Put(out, message.view.value);
  Put(out, message.part);
  Put(out, message.parts);
  Put(out, uint16_t(message.entries.size()));
  for (const TokenEntry& e : message.entries) PutEntry(out, e, kFieldsOf[int(message.kind)]);
  return out;
}

absl::StatusOr<TokenMessage> DecodeTokenMessage(std::string_view bytes) {
  if (bytes.size() > kMaxTokenMessageBytes) return absl::InvalidArgumentError("bad token message: too long");
  Reader in(bytes);
  const auto kind = in.Get<uint8_t>();
  if (!in.good() || kind >= kTokenMessageKinds) return absl::InvalidArgumentError("bad token message: its kind");
  TokenMessage message{.kind = TokenMessageKind(kind), .view = {}, .part = 0, .parts = 1, .entries = {}};
  message.view = Epoch(in.Get<uint64_t>());
  message.part = in.Get<uint32_t>();
  message.parts = in.Get<uint32_t>();
  const size_t count = in.Get<uint16_t>();
  const bool alone = message.part == 0 && message.parts == 1;
  if (!in.good() || count > MaxTokenEntries(message.kind) || message.part >= message.parts ||
      (!alone && message.kind != TokenMessageKind::kRegister)) {
    return absl::InvalidArgumentError("bad token message: its head");
  }
  for (size_t i = 0; i < count && in.good(); ++i) message.entries.push_back(GetEntry(in, kFieldsOf[kind]));
  if (!in.good() || !in.AtEnd()) return absl::InvalidArgumentError("bad token message: its entries");
  return message;
}

void PackTokenEntries(TokenMessageKind kind, Epoch view, NodeInstance to, std::vector<TokenEntry> entries,
                      std::vector<TokenSend>& out) {
  const size_t most = MaxTokenEntries(kind);
  for (size_t at = 0; at < entries.size(); at += most) {
    TokenMessage message{.kind = kind, .view = view, .part = 0, .parts = 1, .entries = {}};
    const size_t end = std::min(entries.size(), at + most);
    message.entries.assign(entries.begin() + std::ptrdiff_t(at), entries.begin() + std::ptrdiff_t(end));
    out.push_back({to, std::move(message)});
  }
}

}  // namespace mangrove::fs
