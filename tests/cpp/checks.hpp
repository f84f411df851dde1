// SPDX-License-Identifier: Apache-2.0
//
// What the test programs of the kernels share: counting checks, comparing numbers, random cases,
// every instruction set that runs here.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

#include "../../csrc/cpu/dispatch.hpp"

namespace test {

inline int g_checks = 0, g_failures = 0;

inline void fail(const std::string& what) {
    if (++g_failures <= 20) std::printf("FAILED %s: %s\n", sosie::active().name, what.c_str());
}

inline void check_true(bool condition, const std::string& what) {
    ++g_checks;
    if (!condition) fail(what);
}

// The largest difference is within `tolerance`; NaN stands where NaN is expected, and only there.
inline void check_close(const std::vector<double>& actual, const std::vector<double>& expected,
                        double tolerance, const std::string& what) {
    ++g_checks;
    for (size_t i = 0; i < expected.size(); ++i) {
        const bool same =
            std::isnan(expected[i])
                ? std::isnan(actual[i])
                : actual[i] == expected[i] || std::fabs(actual[i] - expected[i]) <= tolerance;
        if (same) continue;
        char text[200];
        std::snprintf(text, sizeof text, ": expected %.9g within %.2g, got %.9g at %zu of %zu",
                      expected[i], tolerance, actual[i], i, expected.size());
        return fail(what + text);
    }
}

// splitmix64: the same cases on every machine.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    double uniform() { return double(next() >> 11) * 0x1p-53; }
    int64_t between(int64_t low, int64_t high) {
        return low + int64_t(next() % uint64_t(high - low + 1));
    }
    bool chance(double probability) { return uniform() < probability; }
    template <class T>
    T pick(std::initializer_list<T> choices) {
        return choices.begin()[next() % choices.size()];
    }

  private:
    uint64_t state_;
};

// Every instruction set in turn.
template <class Check>
void each_isa(Check check) {
    for (const std::string& isa : sosie::supported_isas()) {
        sosie::select(isa);
        check();
    }
}

// What a test program says at its end, and its exit status.
inline int report() {
    std::string isas;
    for (const std::string& isa : sosie::supported_isas()) isas += " " + isa;
    std::printf("%d checks, %d failed, on%s\n", g_checks, g_failures, isas.c_str());
    return g_failures == 0 ? 0 : 1;
}

}  // namespace test
