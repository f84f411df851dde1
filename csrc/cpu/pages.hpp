// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>

namespace sosie {

// Asks the system to back fresh memory with large pages (2 MiB in place of 4 KiB) when it is first
// written: one interruption in place of 512. A wish that may go unheard; elsewhere than on Linux it
// does.
void use_large_pages(std::uintptr_t address, std::size_t size);

}  // namespace sosie
