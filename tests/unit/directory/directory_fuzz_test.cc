// Whatever comes for a packet of messages, or for a page of the directory, is refused, or is what can be sent, or written.
// Covers: C13

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "directory/directory_edit.h"
#include "directory/directory_page.h"
#include "tests/fuzz.h"
#include "tests/unit/directory/codec_expect.h"

namespace mangrove {
namespace {

// --- Packets: their bytes, and behind them one that says how many pages came with them. ----------------------------------

constexpr size_t kMostPages = 3;

std::string InputOf(const Packet& packet) {
  return std::string(fuzz::AsText(packet.bytes)) + static_cast<char>(packet.pages.size());
}

bool IsPacket(std::string_view input) {
  if (input.empty()) return false;
  const PageBuffer pages[kMostPages] = {MakePage(1), MakePage(2), MakePage(3)};
  std::vector<const std::byte*> pointers;
  for (size_t i = 0; i < static_cast<unsigned char>(input.back()) % (kMostPages + 1); ++i) {
    pointers.push_back(pages[i]->bytes.data());
  }
  const auto decoded = Decode(fuzz::AsBytes(input.substr(0, input.size() - 1)), pointers);
  if (!decoded.ok()) {
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(decoded.status().message().find("bad message: ") == 0) << decoded.status();
    return false;
  }
  size_t next = 0;
  Encode(*decoded, [&](const Packet& packet) {
    const auto again = DecodePacket(packet);
    ASSERT_TRUE(again.ok()) << again.status();
    ASSERT_LE(next + again->size(), decoded->size());
    for (const Message& m : *again) ExpectEqual(m, decoded->at(next++));
  });
  EXPECT_EQ(next, decoded->size());
  return true;
}

TEST(DirectoryFuzz, APacketIsRefusedOrCanBeSentAgain) {
  Message with_text = Full(2);
  with_text.text = std::string(57, 'z');
  std::vector<Message> run;
  for (uint64_t i = 0; i < 40; ++i) {
    Message& m = run.emplace_back(Small());
    m.page = PageId(500 + i);
    m.txn = Txn(1000 + i);
  }
  fuzz::Decoder packets{.name = "packet", .corpus = {}, .take = IsPacket, .mutations = 60'000};
  for (const std::vector<Message>& messages :
       {std::vector{Full(1), with_text, Small(), Small(MessageKind::kRegisterEnd)}, std::vector{Small()}, run}) {
    packets.corpus.push_back(InputOf(EncodeAll(messages).at(0)));
  }
  for (int kind = 0; kind < kMessageKinds; ++kind) {
    packets.corpus.push_back(InputOf(EncodeOne(Small(static_cast<MessageKind>(kind)))));
  }
  // The words behind the segment table, as many as there are.
  packets.repair = [](std::string& input) {
    if (input.size() < 9) return;
    const uint32_t table[2] = {0, static_cast<uint32_t>((input.size() - 1) / 8 - 1)};
    std::memcpy(input.data(), table, sizeof(table));
    const char pages = input.back();
    input.resize((input.size() - 1) / 8 * 8);
    input.push_back(pages);
  };
  fuzz::Run(packets);
}

// --- Pages of the directory -------------------------------------------------------------------------------------------

constexpr PageId Segment(uint64_t n) { return kFirstReservablePage + n * kSegmentPages; }

// A lookup stays within the page, whatever it holds: it comes before the parse.
void LookUp(const PageBytes& page, PageId at) {
  const auto view = DirectoryPageView::Of(page);
  if (!view) return;
  EXPECT_LE(view->CountUpTo(at), view->size());
  if (view->level() > 0) return;
  std::vector<DirectoryEntry> runs;
  AppendRunsIn(*view, {at, Segment(1100)}, &runs);
  FirstGap(*view, {at, Segment(1100)});
}

bool IsDirectoryPage(std::string_view bytes) {
  if (bytes.size() != kPageBytes) return false;
  PageBytes page;
  std::memcpy(page.bytes.data(), bytes.data(), kPageBytes);
  for (const uint64_t segment : {0, 5, 999}) LookUp(page, Segment(segment));
  const auto parsed = ParseDirectoryPage(page);
  if (!parsed.ok()) return false;
  EXPECT_EQ(std::memcmp(&page, SerializeDirectoryPage(*parsed).get(), kPageBytes), 0);
  return true;
}

TEST(DirectoryFuzz, APageIsRefusedOrIsWhatIsWritten) {
  DirectoryPage leaf{.keys = {Segment(0), Segment(1000)}, .right = {PageId(77), NodeId(9)}, .order = {5, 6}};
  leaf.runs = {{{Segment(0), kSegmentPages}, NodeId(1), 1},
               {{Segment(1), 2 * kSegmentPages}, NodeId(2), 7},
               {{Segment(10), 90 * kSegmentPages}, NodeId(2), 1}};
  DirectoryPage full{.keys = kWholeSpace};
  for (uint64_t i = 0; i < kMaxDirectoryRuns; ++i) {
    full.runs.push_back({{Segment(i), kSegmentPages}, NodeId(i % 2 + 1), 1});
  }
  DirectoryPage interior{.level = 2, .keys = {Segment(4), kSpaceEnd}};
  interior.children = {{Segment(4), {PageId(100), NodeId(1)}},
                       {Segment(9), {PageId(absl::uint128(1) << 100), NodeId(2)}}};
  fuzz::Decoder pages{.name = "page", .corpus = {}, .take = IsDirectoryPage, .interesting_bytes = 200};
  for (const DirectoryPage& page : {leaf, full, interior, DirectoryPage{}}) {
    pages.corpus.emplace_back(fuzz::AsText(SerializeDirectoryPage(page)->bytes));
  }
  pages.repair = [](std::string& bytes) { bytes.resize(kPageBytes); };
  fuzz::Run(pages);
}

}  // namespace
}  // namespace mangrove
