#include "bench/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/timing.h"

namespace mangrove::bench {

Row Measure(const Measurement& measurement, int repetitions) {
  std::vector<double> values;
  std::vector<double> floors;
  std::vector<double> locals;
  for (int i = 0; i < repetitions; ++i) {
    if (measurement.local) locals.push_back(measurement.local());
    floors.push_back(measurement.floor());
    values.push_back(measurement.value());
  }
  Row row{.name = measurement.name, .unit = measurement.unit, .repetitions = repetitions};
  row.value = Median(values);
  row.floor = Median(floors);
  row.ratio = row.value / row.floor;
  if (!locals.empty()) row.local = Median(locals);
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  row.spread = (*most - *least) / row.value;
  return row;
}

void Group::Add(std::string name, std::string unit, std::function<double()> value, std::function<double()> floor) {
  if (!options_.Wants(name)) return;
  std::fprintf(stderr, "%s ...\n", name.c_str());
  rows_->push_back(
      Measure({std::move(name), std::move(unit), std::move(value), std::move(floor)}, options_.repetitions));
}

std::string ToJson(const std::vector<Row>& rows) {
  const auto rounded = [](double number) { return std::round(number * 1000) / 1000; };
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    list.push_back({{"name", row.name},
                    {"value", rounded(row.value)},
                    {"unit", row.unit},
                    {"floor", rounded(row.floor)},
                    {"ratio", rounded(row.ratio)},
                    {"repetitions", row.repetitions},
                    {"spread", rounded(row.spread)}});
    if (row.local == 0) continue;
    list.back()["local"] = rounded(row.local);
    list.back()["ratio_to_local"] = rounded(row.value / row.local);
  }
  return list.dump(2);
}

std::string ToTable(const std::vector<Row>& rows) {
  const bool has_local = std::any_of(rows.begin(), rows.end(), [](const Row& row) { return row.local != 0; });
  std::string table = absl::StrFormat("%-28s %12s %5s %12s %7s %7s%s\n", "", "value", "unit", "floor", "ratio",
                                      "spread", has_local ? "        local   ratio" : "");
  for (const Row& row : rows) {
    absl::StrAppendFormat(&table, "%-28s %12.2f %5s %12.2f %7.2f %6.0f%%", row.name, row.value, row.unit, row.floor,
                          row.ratio, 100 * row.spread);
    if (row.local != 0) absl::StrAppendFormat(&table, " %12.2f %7.2f", row.local, row.value / row.local);
    table += "\n";
  }
  return table;
}

}  // namespace mangrove::bench
