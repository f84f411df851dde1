// SPDX-License-Identifier: Apache-2.0
#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace sosie {

// The build sets SOSIE_ISAS to one ISA(name) after another, worst first.
#define ISA(name) extern const Kernels kernels_##name;
SOSIE_ISAS
#undef ISA

namespace {

struct Candidate {
    const Kernels* kernels;
    bool (*runs_here)();
};

[[maybe_unused]] bool runs_baseline() {
    return true;
}
[[maybe_unused]] bool runs_neon() {
    return true;
}  // part of every 64-bit Arm
#if defined(__x86_64__)
// __builtin_cpu_supports also asks whether the operating system saves the registers.
[[maybe_unused]] bool runs_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
[[maybe_unused]] bool runs_avx512() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#if defined(__x86_64__)
// Zen 4 (family 25; its forerunners there have no AVX-512) makes 512-bit operations of two halves.
// It gains nothing from them and loses where vectors are moved about: uniform windows take a
// quarter longer, the tile of distances a fifth.
bool halves_vectors() {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx) || ebx != signature_AMD_ebx) return false;
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    const unsigned family = ((eax >> 8) & 15) + ((eax >> 20) & 255);
    return family == 25;
}
#else
bool halves_vectors() {
    return false;
}
#endif

const std::vector<Candidate>& candidates() {
#define ISA(name) {&kernels_##name, &runs_##name},
    static const std::vector<Candidate> all = {SOSIE_ISAS};
#undef ISA
    return all;
}

const Kernels* find(const std::string& name) {
    for (const Candidate& candidate : candidates())
        if (name == candidate.kernels->name && candidate.runs_here()) return candidate.kernels;
    std::string possible;
    for (const std::string& isa : supported_isas())
        possible += (possible.empty() ? "" : ", ") + isa;
    throw std::invalid_argument("expected an instruction set this machine runs (" + possible +
                                "), got '" + name + "'");
}

const Kernels* choose() {
    const char* wanted = std::getenv("SOSIE_ISA");
    if (wanted && *wanted) return find(wanted);
    std::string best = supported_isas().back();
    if (best == "avx512" && halves_vectors()) best = "avx2";
    return find(best);
}

std::atomic<const Kernels*> g_active{nullptr};

}  // namespace

const Kernels& active() {
    const Kernels* kernels = g_active.load(std::memory_order_relaxed);
    if (kernels == nullptr) g_active.store(kernels = choose());
    return *kernels;
}

std::vector<std::string> compiled_isas() {
    std::vector<std::string> names;
    for (const Candidate& candidate : candidates()) names.push_back(candidate.kernels->name);
    return names;
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const Candidate& candidate : candidates())
        if (candidate.runs_here()) names.push_back(candidate.kernels->name);
    return names;
}

void select(const std::string& name) {
    g_active.store(find(name));
}

}  // namespace sosie
