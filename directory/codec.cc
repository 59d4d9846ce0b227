#include "directory/codec.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <algorithm>
#include <bitset>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
#include "directory/messages.capnp.h"
#include "directory/page_run.h"
#include "net/check.h"
#include "net/transport.h"

namespace mangrove {

namespace {

using capnp::word;

constexpr size_t kMaxWords = kMaxMessageBytes / sizeof(word);
constexpr size_t kMaxTextBytes = 200;
// The segment table, that of one segment: how many segments less one, and the words of the first.
constexpr size_t kTableWords = 1;
// The segment table, the root's pointer, the packet's pointer to the list, the list's tag.
constexpr size_t kHeadWords = kTableWords + 3;
// A message without its text, inline in the list.
constexpr size_t kMessageWords =
    wire::PageMessage::_capnpPrivate::dataWordSize + wire::PageMessage::_capnpPrivate::pointerCount;
static_assert(kMessageWords == 16);
static_assert(static_cast<int>(wire::Kind::WENT_BACK) + 1 == kMessageKinds);
static_assert(static_cast<int>(wire::Access::MOVE) == static_cast<int>(Access::kMove));
static_assert(static_cast<int>(wire::Holding::RETAINED) == static_cast<int>(Holding::kRetained));
// Messages that one entry, or one packet, may stand for.
constexpr size_t kMaxRepeat = kSegmentPages;
constexpr size_t kMaxPacketMessages = 2048;
constexpr int kMaxCode = static_cast<int>(absl::StatusCode::kUnauthenticated);

// --- Encoding ---------------------------------------------------------------------------------------------------------

// What of the error's text travels: at most kMaxTextBytes, ending between two characters of UTF-8.
std::string_view TextOf(const Message& m) {
  if (m.code == absl::StatusCode::kOk) return {};
  const std::string_view text = m.text;
  if (text.size() <= kMaxTextBytes) return text;
  size_t end = kMaxTextBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end == 0 ? kMaxTextBytes : end);
}

// Words that `m` takes in the segment. A text ends with a NUL.
size_t WordsOf(const Message& m) {
  const size_t text_bytes = TextOf(m).size();
  return kMessageWords + (text_bytes == 0 ? 0 : (text_bytes + 1 + sizeof(word) - 1) / sizeof(word));
}

void Fill(wire::PageMessage::Builder out, const Message& m, size_t repeat, size_t data_index) {
  out.setKind(static_cast<wire::Kind>(m.kind));
  out.setPageHigh(absl::Uint128High64(m.page.value));
  out.setPageLow(absl::Uint128Low64(m.page.value));
  out.setCount(m.count);
  out.setTxn(m.txn.value);
  out.setRequest(m.request.value);
  out.setPeerNode(m.peer.node.value);
  out.setPeerIncarnation(m.peer.incarnation.value);
  out.setAccess(static_cast<wire::Access>(m.access));
  out.setHolding(static_cast<wire::Holding>(m.holding));
  out.setVersionEpoch(m.version.epoch.value);
  out.setVersionCounter(m.version.counter);
  out.setFlushedEpoch(m.flushed.epoch.value);
  out.setFlushedCounter(m.flushed.counter);
  out.setGrantEpoch(m.grant_epoch.value);
  out.setConfig(m.config.value);
  out.setReplicas(m.replicas);
  out.setActive(m.active);
  out.setHave(m.have);
  out.setExclusive(m.exclusive);
  out.setOwner(m.owner);
  out.setRetain(m.retain);
  out.setKept(m.kept);
  out.setSeal(m.seal);
  out.setComplete(m.complete);
  out.setWithData(m.with_data);
  out.setIsVolatile(m.is_volatile);
  out.setHurry(m.hurry);
  out.setCode(static_cast<uint8_t>(m.code));
  out.setData(static_cast<uint8_t>(data_index));
  out.setRepeat(static_cast<uint16_t>(repeat));
  const std::string_view text = TextOf(m);
  if (!text.empty()) std::memcpy(out.initText(static_cast<unsigned>(text.size())).begin(), text.data(), text.size());
}

// Messages that one entry stands for: side by side, or a run.
struct Run {
  std::span<const Message> messages;
  size_t size() const { return messages.size() > 1 ? messages.size() : messages.front().repeat; }
};

// What goes into one packet.
struct Batch {
  absl::InlinedVector<Run, 4> runs;
  size_t items = 0;     // Of those that are to be encoded.
  size_t messages = 0;  // That they are.
  size_t words = kHeadWords;
};

Batch FirstBatch(std::span<const Message> messages) {
  Batch batch;
  size_t pages = 0;
  size_t begin = 0;  // Of the last run.
  for (; batch.items < messages.size() && batch.messages < kMaxPacketMessages; ++batch.items) {
    const Message& m = messages[batch.items];
    CHECK(m.repeat <= kMaxRepeat && (m.data == nullptr || m.repeat <= kMaxMessagePages));
    pages += m.data ? m.repeat : 0;
    if (pages > kMaxMessagePages) break;
    if (batch.messages > 0 && batch.messages + m.repeat > kMaxPacketMessages) break;
    const size_t run = batch.items - begin;
    const bool joins = run > 0 && run < kMaxRepeat && m.repeat == 1 && messages[begin].repeat == 1;
    if (joins && GoesOn(messages[begin], m, run)) {
      ++batch.messages;
      continue;
    }
    const size_t words = batch.words + WordsOf(m);
    if (words > kMaxWords) break;
    if (run > 0) batch.runs.push_back({messages.subspan(begin, run)});
    batch.words = words;
    batch.messages += m.repeat;
    begin = batch.items;
  }
  CHECK(batch.items > 0);
  batch.runs.push_back({messages.subspan(begin, batch.items - begin)});
  return batch;
}

void EncodeBatch(const Batch& batch, Packet& packet) {
  const size_t words = batch.words;
  packet.pages.clear();
  packet.bytes.assign(words * sizeof(word), std::byte{0});
  const uint32_t table[2] = {0, static_cast<uint32_t>(words - kTableWords)};
  std::memcpy(packet.bytes.data(), table, sizeof(table));

  // In place: the size is known, so nothing is allocated and nothing copied.
  auto* segment = reinterpret_cast<word*>(packet.bytes.data()) + kTableWords;
  capnp::FlatMessageBuilder builder(kj::arrayPtr(segment, words - kTableWords));
  auto list = builder.initRoot<wire::Packet>().initMessages(static_cast<unsigned>(batch.runs.size()));
  for (unsigned i = 0; i < batch.runs.size(); ++i) {
    const Run& run = batch.runs[i];
    const Message& first = run.messages.front();
    const bool with_data = first.data != nullptr;
    Fill(list[i], first, run.size(), with_data ? packet.pages.size() + 1 : 0);
    if (!with_data) continue;
    for (const Message& m : run.messages) {
      for (uint64_t page = 0; page < m.repeat; ++page) packet.pages.push_back(DataOf(m, page));
    }
  }
  builder.requireFilled();
}

// --- Decoding ---------------------------------------------------------------------------------------------------------

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("bad message: ", parts...));
}

// Kinds that may name no page: page 0.
bool MayNameNoPage(MessageKind kind) {
  return kind == MessageKind::kRegisterRequest || kind == MessageKind::kRegisterEnd || kind == MessageKind::kInspect ||
         kind == MessageKind::kInspected || kind == MessageKind::kClaimRequest || kind == MessageKind::kClaims ||
         kind == MessageKind::kResources || kind == MessageKind::kListStored || kind == MessageKind::kStoredList;
}

// Kinds whose receiver looks at each page of their range.
bool IsOfAFewPages(MessageKind kind) {
  return kind == MessageKind::kRequest || kind == MessageKind::kFlush || kind == MessageKind::kReverted ||
         kind == MessageKind::kLost;
}

absl::Status CheckRepeat(wire::PageMessage::Reader in, absl::uint128 page, unsigned index) {
  const unsigned repeat = in.getRepeat();
  if (repeat == 1) return absl::OkStatus();
  if (repeat == 0 || repeat > kMaxRepeat) {
    return Bad("entry ", index, " stands for ", repeat, " messages, expected 1 to ", kMaxRepeat);
  }
  if (page != 0 && in.getCount() == 1 && in.getCode() == 0 && repeat <= kSpacePages - page &&
      in.getTxn() <= UINT64_MAX - repeat && in.getRequest() <= UINT64_MAX - repeat) {
    return absl::OkStatus();
  }
  return Bad("entry ", index, " stands for ", repeat, " messages, which cannot be");
}

// What enumerations, ranges and the text must satisfy beyond what the library checks.
absl::Status CheckFields(wire::PageMessage::Reader in, unsigned index) {
  const auto kind = static_cast<unsigned>(in.getKind());
  if (kind >= unsigned{kMessageKinds}) return Bad("entry ", index, " is of the unknown kind ", kind);
  const char* const name = Name(static_cast<MessageKind>(kind));
  if (static_cast<unsigned>(in.getAccess()) > static_cast<unsigned>(Access::kMove)) {
    return Bad(name, " (entry ", index, ") has the unknown access ", static_cast<unsigned>(in.getAccess()));
  }
  if (static_cast<unsigned>(in.getHolding()) > static_cast<unsigned>(Holding::kRetained)) {
    return Bad(name, " (entry ", index, ") has the unknown holding ", static_cast<unsigned>(in.getHolding()));
  }
  if (in.getCode() > kMaxCode) {
    return Bad(name, " (entry ", index, ") has the unknown status code ", static_cast<unsigned>(in.getCode()));
  }
  const absl::uint128 page = absl::MakeUint128(in.getPageHigh(), in.getPageLow());
  if (page == 0 && MayNameNoPage(static_cast<MessageKind>(kind))) return CheckRepeat(in, page, index);
  if (page == 0) return Bad(name, " (entry ", index, ") names page 0, which is never valid");
  if (page >= kSpacePages || in.getCount() > kSpacePages - page) {
    return Bad(name, " (entry ", index, ") names ", in.getCount(), " pages from ", ToString(PageId(page)),
               " on, which leave the address space");
  }
  if (absl::Status s = CheckRepeat(in, page, index); !s.ok()) return s;
  if (IsOfAFewPages(static_cast<MessageKind>(kind)) && (in.getCount() == 0 || in.getCount() > kSegmentPages)) {
    return Bad(name, " (entry ", index, ") is about ", in.getCount(), " pages, expected 1 to ", kSegmentPages);
  }
  return absl::OkStatus();
}

Message Read(wire::PageMessage::Reader in) {
  Message m;
  m.kind = static_cast<MessageKind>(in.getKind());
  m.page = PageId(absl::MakeUint128(in.getPageHigh(), in.getPageLow()));
  m.count = in.getCount();
  m.txn = Txn(in.getTxn());
  m.request = RequestId(in.getRequest());
  m.peer = {NodeId(in.getPeerNode()), Incarnation(in.getPeerIncarnation())};
  m.access = static_cast<Access>(in.getAccess());
  m.holding = static_cast<Holding>(in.getHolding());
  m.version = {Epoch(in.getVersionEpoch()), in.getVersionCounter()};
  m.flushed = {Epoch(in.getFlushedEpoch()), in.getFlushedCounter()};
  m.grant_epoch = Epoch(in.getGrantEpoch());
  m.config = ConfigNumber(in.getConfig());
  m.replicas = in.getReplicas();
  m.active = in.getActive();
  m.have = in.getHave();
  m.exclusive = in.getExclusive();
  m.owner = in.getOwner();
  m.retain = in.getRetain();
  m.kept = in.getKept();
  m.seal = in.getSeal();
  m.complete = in.getComplete();
  m.with_data = in.getWithData();
  m.is_volatile = in.getIsVolatile();
  m.hurry = in.getHurry();
  m.code = static_cast<absl::StatusCode>(in.getCode());
  return m;
}

absl::Status ReadText(wire::PageMessage::Reader in, unsigned index, Message& m) {
  if (!in.hasText()) return absl::OkStatus();
  const capnp::Text::Reader text = in.getText();
  if (m.code == absl::StatusCode::kOk) return Bad(Name(m.kind), " (entry ", index, ") has a text but no error");
  if (text.size() > kMaxTextBytes) {
    return Bad(Name(m.kind), " (entry ", index, ") has a text of ", text.size(), " bytes, more than ", kMaxTextBytes);
  }
  m.text.assign(text.begin(), text.size());
  return absl::OkStatus();
}

// The pages of one packet, each to be taken once.
class PageTable {
 public:
  explicit PageTable(size_t pages) : pages_(pages) {}

  // Of `repeat` messages; `number` is the first one's.
  absl::Status Take(size_t number, size_t repeat, unsigned index, const char* name) {
    if (number == 0) return absl::OkStatus();
    const size_t last = number + repeat - 1;
    if (last > pages_) {
      return Bad(name, " (entry ", index, ") names page ", last, " of ", pages_, " that came with it");
    }
    for (; number <= last; ++number) {
      if (taken_.test(number - 1)) return Bad(name, " (entry ", index, ") names page ", number, " a second time");
      taken_.set(number - 1);
    }
    return absl::OkStatus();
  }

  absl::Status AllTaken() const {
    if (taken_.count() == pages_) return absl::OkStatus();
    return Bad(pages_, " pages came with it, and it names ", taken_.count(), " of them");
  }

 private:
  const size_t pages_;
  std::bitset<kMaxMessagePages> taken_;
};

struct Entry {
  Message message;  // The first.
  size_t repeat = 1;
  size_t data = 0;  // 1 + its page's index, or 0.
};

absl::StatusOr<std::vector<Entry>> ReadPacket(kj::ArrayPtr<const word> words, size_t pages) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 2 * kMaxWords;
  options.nestingLimit = 4;
  capnp::FlatArrayMessageReader reader(words, options);
  if (reader.getEnd() != words.end()) return Bad(words.end() - reader.getEnd(), " words after its end");

  const auto list = reader.getRoot<wire::Packet>().getMessages();
  // Lists of smaller elements, which the library would fill up with defaults, are no way to make many out of few bytes.
  if (list.size() * kMessageWords > words.size()) {
    return Bad("a list of ", list.size(), " entries in ", words.size(), " words");
  }
  PageTable table(pages);
  std::vector<Entry> entries;
  entries.reserve(list.size());
  size_t messages = 0;
  for (unsigned i = 0; i < list.size(); ++i) {
    const auto in = list[i];
    if (absl::Status s = CheckFields(in, i); !s.ok()) return s;
    Entry& entry = entries.emplace_back(Entry{Read(in), in.getRepeat(), in.getData()});
    if (absl::Status s = ReadText(in, i, entry.message); !s.ok()) return s;
    if (absl::Status s = table.Take(entry.data, entry.repeat, i, Name(entry.message.kind)); !s.ok()) return s;
    messages += entry.repeat;
  }
  if (absl::Status s = table.AllTaken(); !s.ok()) return s;
  if (messages > kMaxPacketMessages) return Bad(messages, " messages in it, more than ", kMaxPacketMessages);
  return entries;
}

absl::StatusOr<std::vector<Entry>> ReadEntries(std::span<const std::byte> bytes, size_t pages) {
  // The library reads whole words, so they must lie where words may lie.
  alignas(word) std::byte aligned[kMaxMessageBytes];
  const std::byte* start = bytes.data();
  if (reinterpret_cast<uintptr_t>(start) % alignof(word) != 0) {
    std::memcpy(aligned, start, bytes.size());
    start = aligned;
  }
  try {
    return ReadPacket(kj::arrayPtr(reinterpret_cast<const word*>(start), bytes.size() / sizeof(word)), pages);
  } catch (const kj::Exception& e) {
    return Bad(e.getDescription().cStr());
  } catch (const std::exception& e) {
    return Bad(e.what());
  }
}

static_assert(kMaxMessagePages <= PageRow::kPages);

// Copies, side by side.
PageBuffer CopyData(std::span<const std::byte* const> pages) {
  std::shared_ptr<PageBytes> copies = NewPages(pages.size());
  for (size_t i = 0; i < pages.size(); ++i) std::memcpy(copies.get()[i].bytes.data(), pages[i], kPageBytes);
  return copies;
}

PageBuffer ReadData(const std::byte* page, bool may_lend) {
  if (may_lend && reinterpret_cast<uintptr_t>(page) % alignof(PageBytes) == 0) {
    return {PageBuffer(), reinterpret_cast<const PageBytes*>(page)};
  }
  auto copy = NewPage();
  std::memcpy(copy->bytes.data(), page, kPageBytes);
  return copy;
}

// How many of them lie one behind the other, where they may be lent; 0: the first one does not.
size_t CountInOnePiece(std::span<const std::byte* const> pages) {
  if (reinterpret_cast<uintptr_t>(pages.front()) % alignof(PageBytes) != 0) return 0;
  size_t count = 1;
  while (count < pages.size() && pages[count] == pages.front() + count * kPageBytes) ++count;
  return count;
}

void ForEach(Entry& entry, std::span<const std::byte* const> pages, absl::FunctionRef<void(const Message&)> each) {
  Message& m = entry.message;
  const bool may_lend = m.kind == MessageKind::kGrant;
  if (entry.data != 0) pages = pages.subspan(entry.data - 1, entry.repeat);
  if (entry.repeat > 1 && MayBeARun(m)) {
    for (size_t done = 0; done < entry.repeat;) {
      const size_t left = entry.repeat - done;
      const size_t lent = entry.data != 0 && may_lend ? CountInOnePiece(pages.subspan(done)) : 0;
      m.repeat = static_cast<uint32_t>(lent > 0 ? lent : left);
      if (entry.data != 0) m.data = lent > 0 ? ReadData(pages[done], true) : CopyData(pages.subspan(done));
      each(m);
      done += m.repeat;
      m.data = nullptr;
      if (done < entry.repeat) MoveOn(m, m.repeat);
    }
    return;
  }
  for (size_t i = 0; i < entry.repeat; ++i) {
    m.data = nullptr;
    if (i > 0) MoveOn(m, 1);
    if (entry.data != 0) m.data = ReadData(pages[i], may_lend);
    each(m);
  }
}

// The sizes, before the library sees anything.
absl::Status CheckFrame(std::span<const std::byte> bytes, size_t page_count) {
  if (bytes.size() > kMaxMessageBytes) return Bad(bytes.size(), " bytes, more than ", kMaxMessageBytes);
  if (bytes.size() % sizeof(word) != 0) return Bad(bytes.size(), " bytes, not a multiple of ", sizeof(word));
  if (bytes.size() < kHeadWords * sizeof(word)) {
    return Bad(bytes.size(), " bytes, less than the ", kHeadWords * sizeof(word), " of an empty one");
  }
  if (page_count > kMaxMessagePages) return Bad(page_count, " pages came with it, more than ", kMaxMessagePages);
  uint32_t segments_less_one = 0;
  std::memcpy(&segments_less_one, bytes.data(), sizeof(segments_less_one));
  if (segments_less_one != 0) return Bad(uint64_t{segments_less_one} + 1, " segments instead of 1");
  return absl::OkStatus();
}

}  // namespace

void Encode(std::span<const Message> messages, absl::FunctionRef<void(const Packet&)> out) {
  Packet packet;
  while (!messages.empty()) {
    const Batch batch = FirstBatch(messages);
    EncodeBatch(batch, packet);
    out(packet);
    messages = messages.subspan(batch.items);
  }
}

absl::Status DecodeEach(std::span<const std::byte> bytes, std::span<const std::byte* const> pages,
                        absl::FunctionRef<void(const Message&)> each) {
  if (absl::Status s = CheckFrame(bytes, pages.size()); !s.ok()) return s;
  absl::StatusOr<std::vector<Entry>> entries = ReadEntries(bytes, pages.size());
  if (!entries.ok()) return entries.status();
  for (Entry& entry : *entries) ForEach(entry, pages, each);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Message>> Decode(std::span<const std::byte> bytes, std::span<const std::byte* const> pages) {
  std::vector<Message> messages;
  const absl::Status status = DecodeEach(bytes, pages, [&](const Message& message) {
    for (uint64_t i = 0; i < message.repeat; ++i) OwnData(messages.emplace_back(PartOf(message, i, 1)));
  });
  if (!status.ok()) return status;
  return messages;
}

// What is lent counts no owners.
bool IsLent(const Message& message) { return message.data != nullptr && message.data.use_count() == 0; }

void OwnData(Message& message) {
  if (!IsLent(message)) return;
  auto copy = NewPage();
  *copy = *message.data;
  message.data = std::move(copy);
}

}  // namespace mangrove
