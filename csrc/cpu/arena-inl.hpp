// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "simd-inl.hpp"

namespace {

// Scratch memory handed out in cache lines; with base == nullptr it only counts.
class Arena {
  public:
    explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
    template <class T>
    T* take(int64_t count) {
        T* p = reinterpret_cast<T*>(base_ + used_);
        used_ += size_t(round_up(count * int64_t(sizeof(T)), 64));
        return p;
    }
    size_t used() const { return used_; }

  private:
    char* base_;
    size_t used_ = 0;
};

}  // namespace
