#include "engine/attach/attach_codec.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/attach/attach.capnp.h"
#include "net/check.h"

namespace mangrove {
namespace {

namespace schema = attach_schema;

// A message of 16 KiB has 2,048 words; a valid one is read once.
constexpr uint64_t kTraversalLimitWords = 8192;
constexpr int kNestingLimit = 8;
constexpr size_t kUserAttributeBytes = 16;

capnp::Text::Reader Text(const std::string& text, size_t limit) { return {text.c_str(), std::min(text.size(), limit)}; }

// Builds a message in place for what nearly all need.
template <typename Root>
class Packet {
 public:
  Packet() : message_(kj::arrayPtr(scratch_, std::size(scratch_))) {}
  typename Root::Builder root() { return message_.template getRoot<Root>(); }
  AttachBytes Bytes() {
    const kj::Array<capnp::word> words = capnp::messageToFlatArray(message_);
    const auto bytes = words.asBytes();
    CHECK(bytes.size() <= kMaxAttachMessageBytes);
    const auto* data = reinterpret_cast<const std::byte*>(bytes.begin());
    return {data, data + bytes.size()};
  }

 private:
  capnp::word scratch_[128] = {};
  capnp::MallocMessageBuilder message_;
};

// --- Into bytes -------------------------------------------------------------------------------------------------------

void PutStatus(schema::Status::Builder out, const absl::Status& status) {
  out.setCode(static_cast<uint16_t>(status.code()));
  const std::string message(status.message().data(), status.message().size());
  // Text ends at a NUL where C reads it.
  if (!message.empty()) {
    const capnp::Text::Reader text = Text(message, kMaxAttachErrorBytes);
    std::memcpy(out.initMessage(text.size()).begin(), text.begin(), text.size());
  }
}

void PutPages(schema::Pages::Builder out, const RegionPages& pages) {
  out.setRegion(pages.region);
  out.setFirst(pages.first);
  out.setCount(pages.count);
}

template <typename Builder>
void PutName(Builder name, const std::string& text) {
  std::memcpy(name.begin(), text.data(), name.size());
}

void PutInfo(schema::RegionInfo::Builder out, const RegionInfo& info) {
  PutName(out.initName(std::min(info.name.size(), kMaxRegionNameBytes)), info.name);
  out.setAddressHigh(absl::Uint128High64(info.address.value));
  out.setAddressLow(absl::Uint128Low64(info.address.value));
  out.setSizeBytes(info.size_bytes);
  out.setAllocatedBytes(info.allocated_bytes);
  out.setOwner(info.owner);
  out.setGroup(info.group);
  out.setMode(info.mode);
  out.setWithoutQuorum(static_cast<uint8_t>(info.without_quorum));
}

// One byte more than the limit, so that the other side sees that it is too long.
size_t NameSize(const std::string& name) { return std::min(name.size(), kMaxRegionNameBytes + 1); }

using CallBuilder = schema::Request::Call::Builder;

void PutCall(CallBuilder out, const ReserveCall& call) {
  auto reserve = out.initReserve();
  PutName(reserve.initName(NameSize(call.options.name)), call.options.name);
  reserve.setSizeBytes(call.options.size_bytes);
  reserve.setHasOwner(call.options.owner.has_value());
  reserve.setOwner(call.options.owner.value_or(0));
  reserve.setHasGroup(call.options.group.has_value());
  reserve.setGroup(call.options.group.value_or(0));
  reserve.setMode(call.options.mode);
  reserve.setWithoutQuorum(static_cast<uint8_t>(call.options.without_quorum));
}
void PutCall(CallBuilder out, const OpenCall& call) {
  auto open = out.initOpen();
  PutName(open.initName(NameSize(call.name)), call.name);
  open.setWrite(call.mode == AccessMode::kWrite);
}
void PutCall(CallBuilder out, const CloseCall& call) { out.setClose(call.region); }
void PutCall(CallBuilder out, const MapCall& call) {
  auto map = out.initMap();
  map.setRegion(call.region);
  map.setBase(call.base);
  map.setForCalls(call.use == MappingUse::kCalls);
}
void PutCall(CallBuilder out, const FreeCall& call) { PutName(out.initFree(NameSize(call.name)), call.name); }
void PutCall(CallBuilder out, const ListCall&) { out.setList(); }
void PutCall(CallBuilder out, const SpaceCall&) { out.setSpace(); }
void PutCall(CallBuilder out, const AllocateCall& call) {
  auto allocate = out.initAllocate();
  PutPages(allocate.initPages(), call.pages);
  allocate.setPersistent(call.options.persistent);
  allocate.setReplicas(call.options.replicas);
}
void PutCall(CallBuilder out, const UnallocateCall& call) { PutPages(out.initUnallocate(), call.pages); }
void PutCall(CallBuilder out, const GetAttributesCall& call) {
  auto get = out.initGetAttributes();
  get.setRegion(call.region);
  get.setPage(call.page);
}
void PutCall(CallBuilder out, const SetAttributesCall& call) {
  auto set = out.initSetAttributes();
  PutPages(set.initPages(), call.pages);
  set.setHasProtocol(call.change.protocol.has_value());
  if (call.change.protocol) set.setProtocol(static_cast<uint8_t>(*call.change.protocol));
  set.setHasReplicas(call.change.replicas.has_value());
  set.setReplicas(call.change.replicas.value_or(0));
  set.setHasKeepInRam(call.change.keep_in_ram.has_value());
  set.setKeepInRam(call.change.keep_in_ram.value_or(false));
  set.setHasUser(call.change.user.has_value());
  if (call.change.user)
    std::memcpy(set.initUser(kUserAttributeBytes).begin(), call.change.user->data(), kUserAttributeBytes);
}
void PutCall(CallBuilder out, const CheckAllocatedCall& call) { PutPages(out.initCheckAllocated(), call.pages); }
void PutCall(CallBuilder out, const AcquireCall& call) {
  auto acquire = out.initAcquire();
  PutPages(acquire.initPages(), call.pages);
  acquire.setWrite(call.mode == AccessMode::kWrite);
}
void PutCall(CallBuilder out, const LockCall& call) {
  auto lock = out.initLock();
  PutPages(lock.initPages(), call.pages);
  lock.setExclusive(call.mode == LockMode::kExclusive);
}
void PutCall(CallBuilder out, const UnlockCall& call) { out.setUnlock(call.lock_id); }
void PutCall(CallBuilder out, const FlushCall& call) { PutPages(out.initFlush(), call.pages); }
void PutCall(CallBuilder out, const HealCall& call) { PutPages(out.initHeal(), call.pages); }
void PutCall(CallBuilder out, const CountersCall& call) { out.setCounters(call.region); }
void PutCall(CallBuilder out, const InspectCall& call) {
  auto inspect = out.initInspect();
  PutName(inspect.initWhat(NameSize(call.what)), call.what);
  PutName(inspect.initArgument(NameSize(call.argument)), call.argument);
}

void PutBytesOfPage(schema::BytesOfPage::Builder out, const BytesOfPage& bytes) {
  out.setRegion(bytes.region);
  out.setPage(bytes.page);
  out.setOffset(bytes.offset);
  out.setLength(bytes.length);
}
void PutCall(CallBuilder out, const BeginCall&) { out.setBegin(); }
void PutCall(CallBuilder out, const ReadInCall& call) {
  auto read = out.initReadIn();
  read.setTransaction(call.transaction);
  PutBytesOfPage(read.initBytes(), call.bytes);
  read.setWrite(call.intent == AccessMode::kWrite);
}
void PutCall(CallBuilder out, const WriteInCall& call) {
  CHECK(call.content.size() <= kPageBytes);
  auto write = out.initWriteIn();
  write.setTransaction(call.transaction);
  PutBytesOfPage(write.initBytes(), call.bytes);
  PutName(write.initContent(call.content.size()), call.content);
}
void PutCall(CallBuilder out, const EndTransactionCall& call) {
  auto end = out.initEndTransaction();
  end.setTransaction(call.transaction);
  end.setCommit(call.commit);
}
void PutCall(CallBuilder out, const ReadLogCall& call) {
  auto read = out.initReadLog();
  read.setRegion(call.region);
  read.setNode(call.node);
}

using ResultBuilder = schema::Reply::Result::Builder;

void PutResult(ResultBuilder out, std::monostate) { out.setNone(); }
void PutResult(ResultBuilder out, const OpenedReply& reply) {
  auto opened = out.initOpened();
  opened.setRegion(reply.region);
  PutInfo(opened.initInfo(), reply.info);
  opened.setMayWrite(reply.may_write);
  opened.setIsOwner(reply.is_owner);
}
void PutResult(ResultBuilder out, const RegionListReply& reply) {
  CHECK(reply.regions.size() <= kRegionsPerReply);
  auto regions = out.initRegions(reply.regions.size());
  for (size_t i = 0; i < reply.regions.size(); ++i) PutInfo(regions[i], reply.regions[i]);
}
void PutResult(ResultBuilder out, const SpaceTotals& totals) {
  auto space = out.initSpace();
  space.setTotalBytes(totals.total_bytes);
  space.setFreeBytes(totals.free_bytes);
  space.setCacheBytes(totals.cache_bytes);
  space.setCacheUsedBytes(totals.cache_used_bytes);
}
void PutResult(ResultBuilder out, const PageAttributes& attributes) {
  auto result = out.initAttributes();
  result.setProtocol(static_cast<uint8_t>(attributes.protocol));
  result.setPersistent(attributes.persistent);
  result.setReplicas(attributes.replicas);
  result.setKeepInRam(attributes.keep_in_ram);
  std::memcpy(result.initUser(kUserAttributeBytes).begin(), attributes.user.data(), kUserAttributeBytes);
}
void PutResult(ResultBuilder out, const LockedReply& reply) { out.setLocked(reply.lock_id); }
void PutResult(ResultBuilder out, const BegunReply& reply) { out.setBegun(reply.transaction); }
void PutResult(ResultBuilder out, const TextReply& reply) {
  CHECK(reply.text.size() <= kTextBytesPerReply);
  PutName(out.initText(reply.text.size()), reply.text);
}
void PutResult(ResultBuilder out, const RegionCounters& counters) {
  auto result = out.initCounters();
  result.setReadFaults(counters.read_faults);
  result.setWriteFaults(counters.write_faults);
  result.setPagesFetched(counters.pages_fetched);
  result.setReverts(counters.reverts);
}

// --- From bytes -------------------------------------------------------------------------------------------------------

// Runs `read` on the message's root; the library's complaints become InvalidArgument.
template <typename Root, typename Result, typename Read>
absl::StatusOr<Result> Parse(const char* what, std::span<const std::byte> bytes, Read read) {
  CHECK(reinterpret_cast<uintptr_t>(bytes.data()) % sizeof(capnp::word) == 0);
  if (bytes.empty() || bytes.size() > kMaxAttachMessageBytes || bytes.size() % sizeof(capnp::word) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a ", what, " has ", bytes.size(),
                                                   " bytes; expected a multiple of 8 up to ", kMaxAttachMessageBytes));
  }
  try {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = kTraversalLimitWords;
    options.nestingLimit = kNestingLimit;
    capnp::FlatArrayMessageReader reader(
        kj::arrayPtr(reinterpret_cast<const capnp::word*>(bytes.data()), bytes.size() / sizeof(capnp::word)), options);
    return read(reader.getRoot<Root>());
  } catch (const kj::Exception& e) {
    return absl::InvalidArgumentError(absl::StrCat("a ", what, " is malformed: ", e.getDescription().cStr()));
  }
}

std::string GetText(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

absl::Status TooLong(const char* what, size_t size, size_t limit) {
  return absl::InvalidArgumentError(absl::StrCat(what, " has ", size, " bytes; expected at most ", limit));
}

absl::StatusOr<std::string> GetName(capnp::Text::Reader text) {
  if (text.size() > kMaxRegionNameBytes) return TooLong("a name", text.size(), kMaxRegionNameBytes);
  return GetText(text);
}

absl::StatusOr<absl::Status> GetStatus(schema::Status::Reader in) {
  if (in.getCode() > static_cast<uint16_t>(absl::StatusCode::kUnauthenticated)) {
    return absl::InvalidArgumentError(absl::StrCat("unknown status code ", in.getCode()));
  }
  const auto message = in.getMessage();
  return absl::Status(static_cast<absl::StatusCode>(in.getCode()), {message.begin(), message.size()});
}

RegionPages GetPages(schema::Pages::Reader in) { return {in.getRegion(), in.getFirst(), in.getCount()}; }

absl::StatusOr<CoherenceProtocol> GetProtocol(uint8_t value) {
  if (value > static_cast<uint8_t>(CoherenceProtocol::kMigratory)) {
    return absl::InvalidArgumentError(absl::StrCat("unknown coherence protocol ", value));
  }
  return static_cast<CoherenceProtocol>(value);
}

absl::StatusOr<std::array<std::byte, kUserAttributeBytes>> GetUser(capnp::Data::Reader in) {
  if (in.size() != kUserAttributeBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the user's attribute has ", in.size(), " bytes; expected ", kUserAttributeBytes));
  }
  std::array<std::byte, kUserAttributeBytes> user;
  std::memcpy(user.data(), in.begin(), user.size());
  return user;
}

absl::StatusOr<WithoutQuorum> GetWithoutQuorum(uint8_t value) {
  if (value <= static_cast<uint8_t>(WithoutQuorum::kRead)) return static_cast<WithoutQuorum>(value);
  return absl::InvalidArgumentError(
      absl::StrCat("what is done without quorum is ", int{value}, ", expected 0 (refuse) or 1 (read)"));
}

absl::StatusOr<RegionInfo> GetInfo(schema::RegionInfo::Reader in) {
  RegionInfo info;
  auto name = GetName(in.getName());
  if (!name.ok()) return name.status();
  info.name = *std::move(name);
  info.address = GlobalAddress(absl::MakeUint128(in.getAddressHigh(), in.getAddressLow()));
  info.size_bytes = in.getSizeBytes();
  info.allocated_bytes = in.getAllocatedBytes();
  info.owner = in.getOwner();
  info.group = in.getGroup();
  info.mode = in.getMode();
  const auto without_quorum = GetWithoutQuorum(in.getWithoutQuorum());
  if (!without_quorum.ok()) return without_quorum.status();
  info.without_quorum = *without_quorum;
  return info;
}

absl::StatusOr<ReserveCall> GetReserve(schema::Request::Call::Reserve::Reader in) {
  auto name = GetName(in.getName());
  if (!name.ok()) return name.status();
  ReserveCall call;
  call.options.name = *std::move(name);
  call.options.size_bytes = in.getSizeBytes();
  if (in.getHasOwner()) call.options.owner = in.getOwner();
  if (in.getHasGroup()) call.options.group = in.getGroup();
  call.options.mode = in.getMode();
  const auto without_quorum = GetWithoutQuorum(in.getWithoutQuorum());
  if (!without_quorum.ok()) return without_quorum.status();
  call.options.without_quorum = *without_quorum;
  return call;
}

absl::StatusOr<SetAttributesCall> GetSetAttributes(schema::Request::Call::SetAttributes::Reader in) {
  SetAttributesCall call;
  call.pages = GetPages(in.getPages());
  if (in.getHasProtocol()) {
    auto protocol = GetProtocol(in.getProtocol());
    if (!protocol.ok()) return protocol.status();
    call.change.protocol = *protocol;
  }
  if (in.getHasReplicas()) call.change.replicas = in.getReplicas();
  if (in.getHasKeepInRam()) call.change.keep_in_ram = in.getKeepInRam();
  if (in.getHasUser()) {
    auto user = GetUser(in.getUser());
    if (!user.ok()) return user.status();
    call.change.user = *user;
  }
  return call;
}

absl::StatusOr<InspectCall> GetInspect(schema::Request::Call::Inspect::Reader in) {
  auto what = GetName(in.getWhat());
  if (!what.ok()) return what.status();
  auto argument = GetName(in.getArgument());
  if (!argument.ok()) return argument.status();
  return InspectCall{*std::move(what), *std::move(argument)};
}

BytesOfPage GetBytesOfPage(schema::BytesOfPage::Reader in) {
  return {in.getRegion(), in.getPage(), in.getOffset(), in.getLength()};
}

absl::StatusOr<WriteInCall> GetWriteIn(schema::Request::Call::WriteIn::Reader in) {
  const BytesOfPage bytes = GetBytesOfPage(in.getBytes());
  const auto content = in.getContent();
  if (content.size() != bytes.length) {
    return absl::InvalidArgumentError(
        absl::StrCat("a transaction writes ", bytes.length, " bytes, and brings ", content.size()));
  }
  return WriteInCall{in.getTransaction(), bytes, {reinterpret_cast<const char*>(content.begin()), content.size()}};
}

// A status or StatusOr of one alternative as the variant's.
template <typename Variant, typename T>
absl::StatusOr<Variant> Widen(absl::StatusOr<T> value) {
  if (!value.ok()) return value.status();
  return Variant(*std::move(value));
}

AccessMode ModeOf(bool write) { return write ? AccessMode::kWrite : AccessMode::kRead; }

using AnyCall = decltype(AttachRequest::call);

absl::StatusOr<AnyCall> GetCall(schema::Request::Call::Reader in) {
  using Call = schema::Request::Call;
  switch (in.which()) {
    case Call::RESERVE: return Widen<AnyCall>(GetReserve(in.getReserve()));
    case Call::OPEN: {
      auto name = GetName(in.getOpen().getName());
      if (!name.ok()) return name.status();
      return OpenCall{*std::move(name), ModeOf(in.getOpen().getWrite())};
    }
    case Call::CLOSE: return CloseCall{in.getClose()};
    case Call::MAP:
      return MapCall{in.getMap().getRegion(), in.getMap().getBase(),
                     in.getMap().getForCalls() ? MappingUse::kCalls : MappingUse::kProgram};
    case Call::FREE: {
      auto name = GetName(in.getFree());
      if (!name.ok()) return name.status();
      return FreeCall{*std::move(name)};
    }
    case Call::LIST: return ListCall{};
    case Call::SPACE: return SpaceCall{};
    case Call::ALLOCATE: {
      const auto allocate = in.getAllocate();
      return AllocateCall{GetPages(allocate.getPages()), {allocate.getPersistent(), allocate.getReplicas()}};
    }
    case Call::UNALLOCATE: return UnallocateCall{GetPages(in.getUnallocate())};
    case Call::GET_ATTRIBUTES:
      return GetAttributesCall{in.getGetAttributes().getRegion(), in.getGetAttributes().getPage()};
    case Call::SET_ATTRIBUTES: return Widen<AnyCall>(GetSetAttributes(in.getSetAttributes()));
    case Call::CHECK_ALLOCATED: return CheckAllocatedCall{GetPages(in.getCheckAllocated())};
    case Call::ACQUIRE: return AcquireCall{GetPages(in.getAcquire().getPages()), ModeOf(in.getAcquire().getWrite())};
    case Call::LOCK:
      return LockCall{GetPages(in.getLock().getPages()),
                      in.getLock().getExclusive() ? LockMode::kExclusive : LockMode::kShared};
    case Call::UNLOCK: return UnlockCall{in.getUnlock()};
    case Call::FLUSH: return FlushCall{GetPages(in.getFlush())};
    case Call::HEAL: return HealCall{GetPages(in.getHeal())};
    case Call::COUNTERS: return CountersCall{in.getCounters()};
    case Call::INSPECT: return Widen<AnyCall>(GetInspect(in.getInspect()));
    case Call::BEGIN: return BeginCall{};
    case Call::READ_IN: {
      const auto read = in.getReadIn();
      return ReadInCall{read.getTransaction(), GetBytesOfPage(read.getBytes()), ModeOf(read.getWrite())};
    }
    case Call::WRITE_IN: return Widen<AnyCall>(GetWriteIn(in.getWriteIn()));
    case Call::END_TRANSACTION:
      return EndTransactionCall{in.getEndTransaction().getTransaction(), in.getEndTransaction().getCommit()};
    case Call::READ_LOG: return ReadLogCall{in.getReadLog().getRegion(), in.getReadLog().getNode()};
  }
  return absl::InvalidArgumentError(absl::StrCat("a request is of the unknown kind ", static_cast<int>(in.which())));
}

absl::StatusOr<RegionListReply> GetRegions(capnp::List<schema::RegionInfo>::Reader in) {
  if (in.size() > kRegionsPerReply) return TooLong("a list of regions", in.size(), kRegionsPerReply);
  RegionListReply reply;
  for (const auto& entry : in) {
    auto info = GetInfo(entry);
    if (!info.ok()) return info.status();
    reply.regions.push_back(*std::move(info));
  }
  return reply;
}

absl::StatusOr<PageAttributes> GetAttributes(schema::Reply::Result::Attributes::Reader in) {
  auto protocol = GetProtocol(in.getProtocol());
  if (!protocol.ok()) return protocol.status();
  auto user = GetUser(in.getUser());
  if (!user.ok()) return user.status();
  return PageAttributes{*protocol, in.getPersistent(), in.getReplicas(), in.getKeepInRam(), *user};
}

using AnyResult = decltype(AttachReply::result);

absl::StatusOr<AnyResult> GetResult(schema::Reply::Result::Reader in) {
  using Result = schema::Reply::Result;
  switch (in.which()) {
    case Result::NONE: return std::monostate();
    case Result::OPENED: {
      const auto opened = in.getOpened();
      auto info = GetInfo(opened.getInfo());
      if (!info.ok()) return info.status();
      return OpenedReply{opened.getRegion(), *std::move(info), opened.getMayWrite(), opened.getIsOwner()};
    }
    case Result::REGIONS: return Widen<AnyResult>(GetRegions(in.getRegions()));
    case Result::SPACE: {
      const auto space = in.getSpace();
      return SpaceTotals{space.getTotalBytes(), space.getFreeBytes(), space.getCacheBytes(), space.getCacheUsedBytes()};
    }
    case Result::ATTRIBUTES: return Widen<AnyResult>(GetAttributes(in.getAttributes()));
    case Result::LOCKED: return LockedReply{in.getLocked()};
    case Result::BEGUN: return BegunReply{in.getBegun()};
    case Result::TEXT: {
      const auto text = in.getText();
      if (text.size() > kTextBytesPerReply) return TooLong("a text", text.size(), kTextBytesPerReply);
      return TextReply{{reinterpret_cast<const char*>(text.begin()), text.size()}};
    }
    case Result::COUNTERS: {
      const auto counters = in.getCounters();
      return RegionCounters{counters.getReadFaults(), counters.getWriteFaults(), counters.getPagesFetched(),
                            counters.getReverts()};
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("a reply is of the unknown kind ", static_cast<int>(in.which())));
}

}  // namespace

AttachBytes EncodeHello(const AttachHello& hello) {
  Packet<schema::Hello> packet;
  packet.root().setMagic(hello.magic);
  packet.root().setVersion(hello.version);
  return packet.Bytes();
}

AttachBytes EncodeWelcome(const AttachWelcome& welcome) {
  Packet<schema::Welcome> packet;
  auto root = packet.root();
  root.setMagic(welcome.magic);
  root.setVersion(welcome.version);
  PutStatus(root.initStatus(), welcome.status);
  PutName(root.initNodeName(std::min(welcome.node_name.size(), kMaxRegionNameBytes)), welcome.node_name);
  return packet.Bytes();
}

AttachBytes EncodeRequest(const AttachRequest& request) {
  Packet<schema::Request> packet;
  auto root = packet.root();
  root.setId(request.id);
  root.setTimeoutMs(request.timeout_ms);
  std::visit([&](const auto& call) { PutCall(root.getCall(), call); }, request.call);
  return packet.Bytes();
}

AttachBytes EncodeReply(const AttachReply& reply) {
  Packet<schema::Reply> packet;
  auto root = packet.root();
  root.setId(reply.id);
  if (!reply.status.ok()) PutStatus(root.initStatus(), reply.status);
  root.setMore(reply.more);
  std::visit([&](const auto& result) { PutResult(root.getResult(), result); }, reply.result);
  return packet.Bytes();
}

AttachBytes EncodeEvent(const AttachEvent& event) {
  Packet<schema::Event> packet;
  packet.root().setKind(static_cast<uint8_t>(event.kind));
  PutPages(packet.root().initPages(), event.pages);
  return packet.Bytes();
}

absl::StatusOr<AttachHello> DecodeHello(std::span<const std::byte> bytes) {
  return Parse<schema::Hello, AttachHello>("hello", bytes, [](schema::Hello::Reader in) -> absl::StatusOr<AttachHello> {
    return AttachHello{in.getMagic(), in.getVersion()};
  });
}

absl::StatusOr<AttachWelcome> DecodeWelcome(std::span<const std::byte> bytes) {
  return Parse<schema::Welcome, AttachWelcome>(
      "welcome", bytes, [](schema::Welcome::Reader in) -> absl::StatusOr<AttachWelcome> {
        auto status = GetStatus(in.getStatus());
        if (!status.ok()) return status.status();
        auto name = GetName(in.getNodeName());
        if (!name.ok()) return name.status();
        return AttachWelcome{in.getMagic(), in.getVersion(), *std::move(status), *std::move(name)};
      });
}

absl::StatusOr<AttachRequest> DecodeRequest(std::span<const std::byte> bytes) {
  return Parse<schema::Request, AttachRequest>("request", bytes,
                                               [](schema::Request::Reader in) -> absl::StatusOr<AttachRequest> {
                                                 auto call = GetCall(in.getCall());
                                                 if (!call.ok()) return call.status();
                                                 return AttachRequest{in.getId(), in.getTimeoutMs(), *std::move(call)};
                                               });
}

absl::StatusOr<AttachReply> DecodeReply(std::span<const std::byte> bytes) {
  return Parse<schema::Reply, AttachReply>("reply", bytes, [](schema::Reply::Reader in) -> absl::StatusOr<AttachReply> {
    auto status = GetStatus(in.getStatus());
    if (!status.ok()) return status.status();
    auto result = GetResult(in.getResult());
    if (!result.ok()) return result.status();
    return AttachReply{in.getId(), *std::move(status), in.getMore(), *std::move(result)};
  });
}

absl::StatusOr<AttachEvent> DecodeEvent(std::span<const std::byte> bytes) {
  return Parse<schema::Event, AttachEvent>("event", bytes, [](schema::Event::Reader in) -> absl::StatusOr<AttachEvent> {
    if (in.getKind() > static_cast<uint8_t>(RegionEvent::Kind::kLost)) {
      return absl::InvalidArgumentError(absl::StrCat("an event is of the unknown kind ", in.getKind()));
    }
    return AttachEvent{static_cast<RegionEvent::Kind>(in.getKind()), GetPages(in.getPages())};
  });
}

}  // namespace mangrove
