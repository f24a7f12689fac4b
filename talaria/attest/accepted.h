// Which values a policy accepts. It has no default: leaving one out does not compile.
#ifndef TALARIA_ATTEST_ACCEPTED_H_
#define TALARIA_ATTEST_ACCEPTED_H_

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

namespace talaria::attest {

// A list, of which the empty one accepts nothing, or the explicit Any().
template <class T>
class Accepted {
 public:
  Accepted(std::vector<T> values) : values_(std::move(values)) {}  // NOLINT: implicit by design
  Accepted(std::initializer_list<T> values) : values_(values) {}
  static Accepted Any() {
    Accepted any{std::vector<T>()};
    any.any_ = true;
    return any;
  }
  bool Has(const T& value) const {
    return any_ || std::find(values_.begin(), values_.end(), value) != values_.end();
  }
  bool any() const { return any_; }
  const std::vector<T>& values() const { return values_; }

 private:
  std::vector<T> values_;
  bool any_ = false;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_ACCEPTED_H_
