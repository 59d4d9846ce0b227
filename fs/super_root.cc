#include "fs/super_root.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "fs/fileset_page.h"
#include "fs/status.h"
#include "net/little_endian.h"
#include "net/log.h"

namespace mangrove::fs {
namespace {

constexpr char kListRegion[] = "filesets";
constexpr uint64_t kListPages = 4096;
constexpr uint64_t kListHead = 0;
constexpr size_t kNextNumberAt = 16;
constexpr size_t kUsedEntriesAt = 24;
constexpr size_t kStateAt = 16;
constexpr size_t kEntryReplicasAt = 20;
constexpr size_t kNumberAt = 24;
constexpr size_t kEntryMadeAt = 32;
constexpr size_t kNameLengthAt = 40;
constexpr size_t kNameAt = 41;
constexpr char kSuperMagic[] = "MGSUPER1";
constexpr DurationNs kTimeout = 30 * kSecond;

Credentials Root() { return {.uid = 0, .gid = 0, .groups = {}}; }

std::string RegionOf(uint64_t number) { return absl::StrCat("fileset-", number); }

FilesetInfo InfoIn(const EditPage& page) {
  const auto bytes = page.bytes();
  return {.name = std::string(bytes.data() + kNameAt, static_cast<unsigned char>(bytes[kNameLengthAt])),
          .state = static_cast<FilesetState>(GetLittle<uint32_t>(bytes, kStateAt)),
          .replicas = GetLittle<uint32_t>(bytes, kEntryReplicasAt),
          .number = GetLittle<uint64_t>(bytes, kNumberAt),
          .made_ns = static_cast<int64_t>(GetLittle<uint64_t>(bytes, kEntryMadeAt)),
          .repair = HolderIn(bytes, Role::kRepair)};
}

void PutInfo(EditPage* page, const FilesetInfo& info) {
  const auto bytes = page->mutable_bytes();
  PutLittle(bytes, kStateAt, static_cast<uint32_t>(info.state));
  PutLittle(bytes, kEntryReplicasAt, info.replicas);
  PutLittle(bytes, kNumberAt, info.number);
  PutLittle(bytes, kEntryMadeAt, static_cast<uint64_t>(info.made_ns));
  bytes[kNameLengthAt] = static_cast<char>(info.name.size());
  std::memcpy(bytes.data() + kNameAt, info.name.data(), info.name.size());
}

absl::Status NoFileset(absl::string_view name) {
  return PosixError(ENOENT, absl::StrCat("there is no fileset \"", name, "\""));
}

// Damage of `what`, which the status does not name.
absl::Status Of(absl::string_view what, absl::Status status) {
  if (!absl::IsDataLoss(status) && ErrnoOf(status) != EIO) return status;
  return PosixError(EIO, absl::StrCat(what, ": ", status.message()));
}
absl::Status OfList(absl::Status status) { return Of("the list of filesets is damaged", std::move(status)); }
absl::Status OfSuperRoot(absl::Status status) {
  return Of(absl::StrCat("the super root, page ", ToString(kSuperRootPage), ", cannot be read"), std::move(status));
}

}  // namespace

std::string ToString(FilesetState state) {
  switch (state) {
    case FilesetState::kFree: return "free";
    case FilesetState::kMaking: return "being made";
    case FilesetState::kOnline: return "online";
    case FilesetState::kOffline: return "offline";
    case FilesetState::kDeleting: return "being deleted";
  }
  return "unknown";
}

// --- The list ---------------------------------------------------------------------------------------------------------

Task<absl::StatusOr<PageRange>> SuperRoot::OpenRegion(std::string name, bool make, uint64_t pages) {
  const TimeNs deadline = node_.clock->Now() + kTimeout;
  if (make) {
    RegionOptions options;
    options.name = name;
    options.size_bytes = pages * kPageSize;
    options.owner = 0;
    options.group = 0;
    const absl::StatusOr<OpenedRegion> made = co_await operations_->Reserve(Root(), options, deadline);
    if (made.ok()) co_return made->pages;
    if (!absl::IsAlreadyExists(made.status())) co_return made.status();
  }
  const absl::StatusOr<OpenedRegion> opened = co_await operations_->Open(Root(), name, AccessMode::kWrite, deadline);
  if (!opened.ok()) co_return opened.status();
  co_return opened->pages;
}

// The super root says where the list is: always the same. P3
Task<absl::Status> SuperRoot::NameList(PageId first, bool* mended) {
  const TimeNs deadline = node_.clock->Now() + kTimeout;
  std::array<std::byte, 24> wanted;
  std::memcpy(wanted.data(), kSuperMagic, 8);
  const GlobalAddress address = AddressOf(first);
  StoreLittle(wanted.data() + 8, absl::Uint128Low64(address.value));
  StoreLittle(wanted.data() + 16, absl::Uint128High64(address.value));
  for (const Rights rights : {Rights::kRead, Rights::kWrite}) {
    while (node_.engine->RightsOf(kSuperRootPage) < rights) {
      const absl::Status status = co_await operations_->Acquire({kSuperRootPage, 1}, rights, deadline);
      if (!status.ok()) co_return OfSuperRoot(status);
    }
    std::array<std::byte, 24> there;
    node_.engine->Load(kSuperRootPage, 0, there);
    if (there == wanted) co_return absl::OkStatus();
    const bool is_empty = there == std::array<std::byte, 24>{};
    if (!is_empty && mended == nullptr) {
      co_return PosixError(EIO,
                           absl::StrCat("the super root, page ", ToString(kSuperRootPage),
                                        ", does not say where the list of filesets is: something has overwritten it; ",
                                        "mangrove fsck --repair writes it anew"));
    }
    if (mended != nullptr) *mended = !is_empty;
  }
  node_.engine->Store(kSuperRootPage, 0, wanted);
  co_return co_await operations_->Flush({kSuperRootPage, 1}, deadline);
}

Task<absl::Status> SuperRoot::OpenList(bool* mended) {
  if (list_ != nullptr) co_return absl::OkStatus();
  const absl::StatusOr<PageRange> region = co_await OpenRegion(kListRegion, true, kListPages);
  if (!region.ok()) co_return region.status();
  auto list = std::make_unique<EnginePages>(node_, *region, clients_());
  absl::Status status = co_await list->Allocate({0, kListPages}, 0);
  if (!status.ok() && !absl::IsAlreadyExists(status)) co_return status;
  auto make = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<std::string> head = co_await edit.GetRaw(kListHead);
    if (!head.ok()) co_return head.status();
    if (head->find_first_not_of('\0') != std::string::npos) co_return absl::OkStatus();
    const absl::StatusOr<EditPage*> page = co_await edit.Make(kListHead, PageKind::kFilesetList);
    if (!page.ok()) co_return page.status();
    PutLittle((*page)->mutable_bytes(), kNextNumberAt, uint64_t{1});
    PutLittle((*page)->mutable_bytes(), kUsedEntriesAt, uint32_t{0});
    co_return absl::OkStatus();
  };
  status = OfList(co_await RunEdit(list.get(), make));
  if (status.ok()) status = co_await NameList(region->first, mended);
  if (status.ok() && list_ == nullptr) {
    list_ = std::move(list);
    list_first_ = region->first;
  }
  co_return status;
}

Task<absl::Status> SuperRoot::Ready(bool* mended) {
  absl::Status status = co_await OpenList(mended);
  if (!status.ok() || has_default_) co_return status;
  const absl::StatusOr<Entry> found = co_await Get(kDefaultFileset);
  if (ErrnoOf(found.status()) == ENOENT || (found.ok() && found->info.state == FilesetState::kMaking)) {
    FilesetOptions options;
    options.mode = 01777;  // Everybody's.
    status = (co_await MakeFileset(kDefaultFileset, options)).status();
    if (ErrnoOf(status) == EEXIST) status = absl::OkStatus();  // Another node was faster.
  } else {
    status = found.status();
  }
  has_default_ = status.ok();
  co_return status;
}

Task<absl::StatusOr<std::vector<SuperRoot::Entry>>> SuperRoot::Entries(Edit* edit, Intent intent) {
  const absl::StatusOr<EditPage*> head = co_await edit->Get(kListHead, PageKind::kFilesetList, intent);
  if (!head.ok()) co_return head.status();
  const auto used = GetLittle<uint32_t>((*head)->bytes(), kUsedEntriesAt);
  std::vector<Entry> entries;
  for (uint64_t page = 1; page <= std::min<uint64_t>(used, kListPages - 1); ++page) {
    const absl::StatusOr<EditPage*> entry = co_await edit->Get(page, PageKind::kFilesetEntry, intent);
    if (!entry.ok()) co_return entry.status();
    entries.push_back({page, InfoIn(**entry)});
  }
  co_return entries;
}

Task<absl::StatusOr<SuperRoot::Entry>> SuperRoot::Get(std::string name) {
  Entry found;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    found = {};
    const absl::StatusOr<std::vector<Entry>> entries = co_await Entries(&edit, Intent::kRead);
    if (!entries.ok()) co_return entries.status();
    for (const Entry& entry : *entries) {
      if (entry.info.state != FilesetState::kFree && entry.info.name == name) found = entry;
    }
    co_return found.page != 0 ? absl::OkStatus() : NoFileset(name);
  };
  const absl::Status status = OfList(co_await RunEdit(list_.get(), body));
  if (!status.ok()) co_return status;
  co_return found;
}

Task<absl::StatusOr<std::vector<FilesetInfo>>> SuperRoot::List() {
  absl::Status status = co_await Ready();
  if (!status.ok()) co_return status;
  std::vector<FilesetInfo> infos;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    infos.clear();
    const absl::StatusOr<std::vector<Entry>> entries = co_await Entries(&edit, Intent::kRead);
    if (!entries.ok()) co_return entries.status();
    for (const Entry& entry : *entries) {
      if (entry.info.state != FilesetState::kFree) infos.push_back(entry.info);
    }
    co_return absl::OkStatus();
  };
  status = OfList(co_await RunEdit(list_.get(), body));
  if (!status.ok()) co_return status;
  std::sort(infos.begin(), infos.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  co_return infos;
}

Task<absl::StatusOr<FilesetInfo>> SuperRoot::Find(std::string name) {
  const absl::Status status = co_await Ready();
  if (!status.ok()) co_return status;
  const absl::StatusOr<Entry> entry = co_await Get(std::move(name));
  if (!entry.ok()) co_return entry.status();
  co_return entry->info;
}

// --- Making and deleting ----------------------------------------------------------------------------------------------

// An entry of a fileset that is to be made; that of an attempt which was interrupted is taken as it is.
Task<absl::StatusOr<SuperRoot::Entry>> SuperRoot::Register(std::string name, FilesetOptions options) {
  Entry registered;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    registered = {};
    const absl::StatusOr<std::vector<Entry>> entries = co_await Entries(&edit, Intent::kWrite);
    if (!entries.ok()) co_return entries.status();
    uint64_t page = 0;
    for (const Entry& entry : *entries) {
      if (entry.info.state == FilesetState::kFree) {
        page = entry.page;
      } else if (entry.info.name == name) {
        registered = entry;
        if (entry.info.state == FilesetState::kMaking) co_return absl::OkStatus();
        co_return PosixError(EEXIST, absl::StrCat("there is a fileset \"", name, "\""));
      }
    }
    const absl::StatusOr<EditPage*> head = co_await edit.Get(kListHead, PageKind::kFilesetList, Intent::kWrite);
    if (!head.ok()) co_return head.status();
    const auto bytes = (*head)->mutable_bytes();
    if (page == 0) {
      page = entries->size() + 1;
      if (page == kListPages) co_return PosixError(ENOSPC, absl::StrCat("there are ", kListPages - 1, " filesets"));
      PutLittle(bytes, kUsedEntriesAt, static_cast<uint32_t>(page));
    }
    const auto number = GetLittle<uint64_t>(bytes, kNextNumberAt);
    PutLittle(bytes, kNextNumberAt, number + 1);
    const absl::StatusOr<EditPage*> entry = co_await edit.Make(page, PageKind::kFilesetEntry);
    if (!entry.ok()) co_return entry.status();
    registered = {page,
                  {.name = name,
                   .state = FilesetState::kMaking,
                   .replicas = options.replicas,
                   .number = number,
                   .made_ns = list_->NowNs(),
                   .repair = std::nullopt}};
    PutInfo(*entry, registered.info);
    co_return absl::OkStatus();
  };
  absl::Status status = co_await RunEdit(list_.get(), body);
  if (status.ok()) status = co_await list_->SyncTransactions();  // P1, P2: before there is a region.
  if (!status.ok()) co_return status;
  co_return registered;
}

// ENOENT: the entry is of that fileset no more.
absl::StatusOr<FilesetInfo> SuperRoot::InfoOf(const Entry& entry, const EditPage& page) {
  FilesetInfo info = InfoIn(page);
  if (info.number != entry.info.number || info.state == FilesetState::kFree) return NoFileset(entry.info.name);
  return info;
}

// OK: durable. ENOENT: the entry is of that fileset no more, and nothing changes.
Task<absl::Status> SuperRoot::SetReplicas(Entry entry, uint32_t replicas) {
  return ChangeInfo(std::move(entry), [replicas](FilesetInfo& info) {
    info.replicas = replicas;
    return absl::OkStatus();
  });
}
// P4
Task<absl::Status> SuperRoot::SetState(Entry entry, FilesetState state) {
  return ChangeInfo(std::move(entry), [this, state](FilesetInfo& info) {
    info.state = state;
    return NotBeingRepaired(info);
  });
}

Task<absl::Status> SuperRoot::ChangeInfo(Entry entry, std::function<absl::Status(FilesetInfo&)> change) {
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> page = co_await edit.Get(entry.page, PageKind::kFilesetEntry, Intent::kWrite);
    if (!page.ok()) co_return page.status();
    absl::StatusOr<FilesetInfo> info = InfoOf(entry, **page);
    if (!info.ok()) co_return info.status();
    if (absl::Status s = change(*info); !s.ok()) co_return s;
    PutInfo(*page, *info);
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(list_.get(), body);
  if (!status.ok()) co_return status;
  co_return co_await list_->SyncTransactions();
}

Task<absl::StatusOr<PageRange>> SuperRoot::OpenRegionOf(Entry entry) {
  return OpenRegion(RegionOf(entry.info.number), false, kRegionPages);
}

Task<absl::StatusOr<FilesetInfo>> SuperRoot::MakeFileset(std::string name, FilesetOptions options) {
  absl::StatusOr<Entry> entry = co_await Register(std::move(name), options);
  if (!entry.ok()) co_return entry.status();
  const absl::StatusOr<PageRange> region = co_await OpenRegion(RegionOf(entry->info.number), true, kRegionPages);
  if (!region.ok()) co_return region.status();
  EnginePages pages(node_, *region, clients_());
  options.replicas = entry->info.replicas;
  absl::Status status = co_await Instance::Make(&pages, options);
  if (status.ok()) status = co_await SetState(*entry, FilesetState::kOnline);
  if (!status.ok()) co_return status;
  entry->info.state = FilesetState::kOnline;
  co_return entry->info;
}

Task<absl::StatusOr<FilesetInfo>> SuperRoot::Create(std::string name, FilesetOptions options) {
  if (absl::Status s = CheckName(name); !s.ok()) co_return s;
  const absl::Status status = co_await Ready();
  if (!status.ok()) co_return status;
  co_return co_await MakeFileset(std::move(name), options);
}

Task<absl::Status> SuperRoot::SetOnline(std::string name, bool online) {
  const absl::Status status = co_await Ready();
  if (!status.ok()) co_return status;
  const absl::StatusOr<Entry> entry = co_await Get(name);
  if (!entry.ok()) co_return entry.status();
  if (entry->info.state != FilesetState::kOnline && entry->info.state != FilesetState::kOffline) {
    co_return PosixError(EBUSY, absl::StrCat("fileset \"", name, "\" is ", ToString(entry->info.state)));
  }
  co_return co_await SetState(*entry, online ? FilesetState::kOnline : FilesetState::kOffline);
}

// The head of the region, which says how many groups there are, goes last. What has gone already is passed over.
Task<absl::Status> SuperRoot::DropPages(PageRange region) {
  std::vector<PageSpan> spans;
  {
    EnginePages pages(node_, region, clients_());
    auto look = [&](Edit& edit) -> Task<absl::Status> {
      spans.clear();
      const absl::StatusOr<std::string> head = co_await edit.GetRaw(kFilesetPage);
      if (!head.ok()) co_return head.status();
      if (head->find_first_not_of('\0') == std::string::npos) co_return absl::OkStatus();  // The rest went before it.
      const absl::StatusOr<EditPage*> fileset = co_await edit.Get(kFilesetPage, PageKind::kFileset, Intent::kRead);
      if (!fileset.ok()) co_return fileset.status();
      for (const Zone zone : {Zone::kMetadata, Zone::kData, Zone::kSingleCopy}) {
        const auto groups = GetLittle<uint32_t>((*fileset)->bytes(), GroupCountAt(zone));
        for (uint32_t i = 0; i < groups; ++i) spans.push_back({PagesOf(zone).first + i * kGroupPages, kGroupPages});
      }
      co_return absl::OkStatus();
    };
    const absl::Status status = co_await RunEdit(&pages, look);
    if (!status.ok() && !absl::IsFailedPrecondition(status)) co_return status;
  }
  spans.push_back({0, kGroupPages});
  for (const PageSpan& span : spans) {
    const absl::Status status = co_await operations_->Unallocate(Root(), {region.first + span.first, span.count},
                                                                 node_.clock->Now() + kTimeout);
    if (!status.ok() && !absl::IsFailedPrecondition(status)) co_return status;
  }
  co_return absl::OkStatus();
}

// EBUSY: a node that is there has it mounted.
Task<absl::Status> SuperRoot::CheckUnused(PageRange region, std::string name) {
  EnginePages pages(node_, region, clients_());
  const auto members = node_.engine->view().members;  // As it is now: nodes come and go meanwhile.
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    for (const auto& [node, incarnation] : members) {
      const uint64_t place = kFirstPlacePage + node.value % kNodePlaces;
      const absl::StatusOr<EditPage*> page = co_await edit.Get(place, PageKind::kPlace, Intent::kRead);
      if (!page.ok()) co_return page.status();
      if (UserOfPlace(**page) == 0) continue;
      co_return PosixError(EBUSY, absl::StrCat("fileset \"", name, "\" is mounted by node ", node.value,
                                               ", or was when that node was lost: mount and unmount it there"));
    }
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(&pages, body);
  co_return absl::IsFailedPrecondition(status) ? absl::OkStatus() : status;  // It was never made.
}

// Of two nodes of one place each would take the other's open files for its own.
absl::Status SuperRoot::CheckPlace() const {
  for (const auto& [node, incarnation] : node_.engine->view().members) {
    if (node == node_.self || node.value % kNodePlaces != node_.self.value % kNodePlaces) continue;
    return PosixError(EBUSY, absl::StrCat("nodes ", node.value, " and ", node_.self.value,
                                          " have one place in filesets, since their numbers are ", kNodePlaces,
                                          " apart or a multiple of it: only one of them may mount any"));
  }
  return absl::OkStatus();
}

Task<absl::Status> SuperRoot::Delete(std::string name) {
  absl::Status status = co_await Ready();
  if (!status.ok()) co_return status;
  const absl::StatusOr<Entry> entry = co_await Get(name);
  if (!entry.ok()) co_return entry.status();
  if (entry->info.state == FilesetState::kOnline) {
    co_return PosixError(EBUSY, absl::StrCat("fileset \"", name, "\" is online: set it offline first"));
  }
  const std::string region_name = RegionOf(entry->info.number);
  const absl::StatusOr<PageRange> region = co_await OpenRegion(region_name, false, kRegionPages);
  if (region.ok() && entry->info.state != FilesetState::kDeleting) {
    status = co_await CheckUnused(*region, name);
    if (!status.ok()) co_return status;
  }
  status = co_await SetState(*entry, FilesetState::kDeleting);  // P1
  if (!status.ok()) co_return status;
  if (region.ok()) {
    status = co_await DropPages(*region);
    if (status.ok()) status = co_await operations_->Free(Root(), region_name, node_.clock->Now() + kTimeout);
  } else if (!absl::IsNotFound(region.status())) {
    status = region.status();
  }
  if (!status.ok()) co_return status;
  co_return co_await SetState(*entry, FilesetState::kFree);
}

Task<absl::StatusOr<CheckReport>> SuperRoot::Check(std::string name, CheckOptions options) {
  bool mended = false;
  bool* const mends = options.repair ? &mended : nullptr;
  absl::Status status = co_await Ready(mends);
  // What this node knows of the list does not say that others will find it.
  if (status.ok() && !mended) status = co_await NameList(list_first_, mends);
  if (!status.ok()) co_return status;
  const absl::StatusOr<Entry> entry = co_await Get(name);
  if (!entry.ok()) co_return entry.status();
  const absl::StatusOr<PageRange> region = co_await OpenRegionOf(*entry);
  if (!region.ok()) co_return region.status();
  if (mended && entry->info.state != FilesetState::kOffline) options.repair = false;
  absl::StatusOr<CheckReport> report = CheckReport{};
  if (options.repair) {
    report = co_await Repair(*entry, *region, options);
  } else {
    EnginePages pages(node_, *region, clients_());
    report = co_await CheckFileset(&pages, options);
  }
  if (report.ok() && mended)
    report->repairs.push_back("the super root had been overwritten: it names the list of filesets again");
  co_return report;
}

void OpenFileset::BeginUpkeep(Clock* clock) {
  const std::string name = absl::StrCat("fileset \"", info.name, "\"");
  upkeep = std::make_unique<Upkeep>(clock,
                                    Upkeep::Chore{.trouble = absl::StrCat(name, ": what was removed is not freed yet"),
                                                  .run = [of = instance.get()] { return of->TakeCare(); },
                                                  .end = [of = instance.get()] { of->StopCare(); }});
  LockTable* const locks = &pages->lock_table();
  lock_upkeep = std::make_unique<Upkeep>(
      clock, Upkeep::Chore{.trouble = absl::StrCat(name, ": other nodes do not know this one's locks yet"),
                           .run = [locks] { return locks->Renew(); }});
  locks->SetNews([of = lock_upkeep.get()] { of->Hurry(); });
}

Task<bool> OpenFileset::EndUpkeep() {
  co_await upkeep->Stop();
  pages->lock_table().SetNews(nullptr);
  co_return co_await lock_upkeep->Stop();
}

Task<absl::StatusOr<std::unique_ptr<OpenFileset>>> SuperRoot::Open(std::string name) {
  absl::Status status = co_await Ready();
  if (!status.ok()) co_return status;
  const absl::StatusOr<Entry> entry = co_await Get(name);
  if (!entry.ok()) co_return entry.status();
  if (entry->info.state != FilesetState::kOnline) {
    co_return PosixError(ENODEV, absl::StrCat("fileset \"", name, "\" is ", ToString(entry->info.state)));
  }
  if (absl::Status s = CheckPlace(); !s.ok()) co_return s;
  const absl::StatusOr<PageRange> region = co_await OpenRegionOf(*entry);
  if (!region.ok()) co_return region.status();
  auto opened = std::make_unique<OpenFileset>();
  opened->info = entry->info;
  opened->pages = std::make_unique<EnginePages>(node_, *region, clients_());
  absl::StatusOr<std::unique_ptr<Instance>> instance = co_await Instance::Open(opened->pages.get());
  if (!instance.ok()) co_return instance.status();
  opened->instance = *std::move(instance);
  status = co_await opened->instance->BeginUse();
  if (!status.ok()) co_return status;
  // One file that is in the way keeps nobody from the others.
  status = co_await opened->instance->FinishRemovals();
  if (!status.ok())
    LogWarning("fileset \"", entry->info.name, "\": what was removed is not freed yet: ", status.message());
  status = co_await FinishQuota(opened->pages.get());
  if (!status.ok()) LogWarning("fileset \"", entry->info.name, "\": its quota is not in force yet: ", status.message());
  opened->BeginUpkeep(node_.clock);
  co_return opened;
}

}  // namespace mangrove::fs
