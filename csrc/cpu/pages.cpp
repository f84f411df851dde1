// SPDX-License-Identifier: Apache-2.0
#include "pages.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sosie {

void use_large_pages([[maybe_unused]] std::uintptr_t address, [[maybe_unused]] std::size_t size) {
#if defined(__linux__)
    constexpr std::uintptr_t page = 4096;
    const std::uintptr_t begin = (address + page - 1) / page * page;
    const std::uintptr_t end = (address + size) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace sosie
