// SPDX-License-Identifier: Apache-2.0
//
// Which instruction set runs: the fastest one this processor and its operating system offer, or the
// one named by SOSIE_ISA. Chosen once, changed only by `select`.
#pragma once
#include <string>
#include <vector>

#include "kernels.hpp"

namespace sosie {

const Kernels& active();
// The same, for kernels that gain from many registers whether or not the processor makes long
// vectors of two halves. Another than `active` only where that was not named.
const Kernels& active_roomy();
std::vector<std::string> compiled_isas();   // worst first
std::vector<std::string> supported_isas();  // of those, what runs here
void select(const std::string& name);       // throws std::invalid_argument with the names possible

}  // namespace sosie
