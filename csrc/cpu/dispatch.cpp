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
// quarter longer, the tile of distances a fifth. Their 32 registers are worth something: gates,
// which spill on 16, take a third less time.
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

std::atomic<const Kernels*> g_active{nullptr}, g_roomy{nullptr};

void choose() {
    const char* wanted = std::getenv("SOSIE_ISA");
    const bool named = wanted && *wanted;
    const std::string best = named ? wanted : supported_isas().back();
    g_roomy.store(find(best));
    g_active.store(!named && best == "avx512" && halves_vectors() ? find("avx2") : find(best));
}

const Kernels& chosen(const std::atomic<const Kernels*>& place) {
    if (place.load(std::memory_order_relaxed) == nullptr) choose();
    return *place.load(std::memory_order_relaxed);
}

}  // namespace

const Kernels& active() {
    return chosen(g_active);
}

const Kernels& active_roomy() {
    return chosen(g_roomy);
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
    const Kernels* kernels = find(name);
    g_roomy.store(kernels);
    g_active.store(kernels);
}

}  // namespace sosie
