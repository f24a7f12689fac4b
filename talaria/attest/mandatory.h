// A field that nobody can forget: a struct with such a field has no default constructor, so leaving
// it out of a policy does not compile.
#ifndef TALARIA_ATTEST_MANDATORY_H_
#define TALARIA_ATTEST_MANDATORY_H_

#include <utility>

namespace talaria::attest {

template <class T>
class Mandatory {
 public:
  Mandatory(T value) : value_(std::move(value)) {}  // NOLINT: implicit by design
  const T& operator*() const { return value_; }
  T& operator*() { return value_; }
  const T* operator->() const { return &value_; }
  T* operator->() { return &value_; }

 private:
  T value_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_MANDATORY_H_
