#include "net/page_buffer.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace mangrove {
namespace {

TEST(PageRow, PagesOfARowLieSideBySide) {
  PageRow row;
  std::vector<std::shared_ptr<PageBytes>> pages;
  for (int i = 0; i < 64; ++i) pages.push_back(row.NewPage());
  for (size_t i = 1; i < pages.size(); ++i) EXPECT_EQ(pages[i].get(), pages[i - 1].get() + 1);
}

TEST(PageRow, APageThatIsHeldIsNotHandedOutAgain) {
  PageRow row;
  const std::shared_ptr<PageBytes> held = row.NewPage();
  held->bytes.fill(std::byte{7});
  for (int i = 0; i < 1000; ++i) {
    const std::shared_ptr<PageBytes> page = row.NewPage();
    ASSERT_NE(page, held);
    page->bytes.fill(std::byte{1});
  }
  EXPECT_EQ(held->bytes.front(), std::byte{7});
}

TEST(PageRow, PagesOutlastTheirRowAndItsThread) {
  std::vector<std::shared_ptr<PageBytes>> pages;
  std::thread([&] {
    PageRow row;
    for (int i = 0; i < 200; ++i) pages.push_back(row.NewPage());
  }).join();
  for (auto& page : pages) page->bytes.fill(std::byte{1});
  pages.clear();
}

}  // namespace
}  // namespace mangrove
