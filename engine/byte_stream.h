// Integers and bytes one after the other, in little-endian order: what is kept in pages, or sent in them.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "net/little_endian.h"

namespace mangrove {

class ByteWriter {
 public:
  template <typename T>
  void Put(T value) {
    const size_t at = out_.size();
    out_.resize(at + sizeof(T));
    StoreLittle(reinterpret_cast<std::byte*>(out_.data()) + at, value);
  }
  void Bytes(std::string_view bytes) { out_.append(bytes); }
  std::string& out() { return out_; }

 private:
  std::string out_;
};

// Past the end everything is 0, and `good` false from then on.
class ByteReader {
 public:
  explicit ByteReader(std::string_view in) : in_(in) {}

  template <typename T>
  T Get() {
    const std::string_view bytes = Bytes(sizeof(T));
    return bytes.size() == sizeof(T) ? LoadLittle<T>(reinterpret_cast<const std::byte*>(bytes.data())) : T{0};
  }
  std::string_view Bytes(size_t count) {
    good_ = good_ && count <= in_.size();
    if (!good_) return {};
    const std::string_view bytes = in_.substr(0, count);
    in_.remove_prefix(count);
    return bytes;
  }
  bool good() const { return good_; }
  size_t left() const { return in_.size(); }

 private:
  std::string_view in_;
  bool good_ = true;
};

}  // namespace mangrove
