// SPDX-License-Identifier: Apache-2.0
//
// What the kernels share: conversions of half precision, sums with a fixed order, warp operations.
#include <cmath>
#include <cstdio>
#include <vector>

#include "../../csrc/cuda/common.cuh"

namespace {

int g_failures = 0;

void check(bool condition, const char* what) {
    if (condition) return;
    ++g_failures;
    std::printf("FAILED %s\n", what);
}

bool same(float a, float b) {
    return a == b || (std::isnan(a) && std::isnan(b));
}

// Every half is what the compiler's own conversion makes of it, and comes back as itself; floats
// between two halves go where the compiler's go.
void check_half() {
    bool reads = true, writes = true, rounds = true;
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const sosie::half value{static_cast<unsigned short>(bits)};
        _Float16 known;
        std::memcpy(&known, &value.bits, 2);
        const float wide = sosie::to_compute(value);
        reads &= same(wide, float(known));
        writes &= std::isnan(wide) || sosie::half_of(wide).bits == bits;
        for (const float factor : {1.00024f, 0.99976f, 1.0002442f, 1.37f}) {
            const float between = wide * factor;
            const _Float16 expected = _Float16(between);
            const float got = sosie::to_compute(sosie::half_of(between));
            rounds &= same(got, float(expected));
        }
    }
    check(reads, "half to float");
    check(writes, "float to the same half");
    check(rounds, "float to the nearest half");
}

void check_bfloat16() {
    bool right = true;
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const float wide = sosie::to_compute(sosie::bfloat16{static_cast<unsigned short>(bits)});
        if (std::isnan(wide)) {
            right &= std::isnan(sosie::to_compute(sosie::bfloat16_of(wide)));
            continue;
        }
        right &= sosie::bfloat16_of(wide).bits == bits;
        // Half a last place up: to the even neighbour. A little more: up.
        const unsigned exact = bits << 16;
        if ((bits & 0x7fff) >= 0x7f7f) continue;
        right &= sosie::bfloat16_of(sosie::float_of_bits(exact | 0x8000)).bits == bits + (bits & 1);
        right &= sosie::bfloat16_of(sosie::float_of_bits(exact | 0x8001)).bits == bits + 1;
        right &= sosie::bfloat16_of(sosie::float_of_bits(exact | 0x7fff)).bits == bits;
    }
    check(right, "bfloat16");
}

struct SumCall {
    const int* values;  // (blocks, 64)
    double* partials;   // (blocks, 2)
    double* sums;       // (2,): of the values and of their squares
    unsigned* ticket;   // 0
    int* of_lanes;      // (blocks, 64)
};

__global__ void add_up(const SumCall call) {
    const int thread = sosie::linear_thread();
    const double value = call.values[64 * blockIdx.x + unsigned(thread)];
    double sums[2] = {value, value * value};
    sosie::block_sums<64>(sums);
    if (thread == 0)
        for (int i = 0; i < 2; ++i) call.partials[2 * blockIdx.x + unsigned(i)] = sums[i];
    const int lane = thread % 32;
    const int from_next = __shfl_down_sync(sosie::kAllLanes, lane, 1);
    const int from_last = __shfl_up_sync(sosie::kAllLanes, lane, 1);
    const int from_five = __shfl_sync(sosie::kAllLanes, lane, 5);
    const unsigned odd = __ballot_sync(sosie::kAllLanes, lane & 1);
    const bool votes = __any_sync(sosie::kAllLanes, lane == 7) &&
                       !__all_sync(sosie::kAllLanes, lane == 7) &&
                       __all_sync(sosie::kAllLanes, lane >= 0);
    call.of_lanes[64 * blockIdx.x + unsigned(thread)] =
        votes && odd == 0xaaaaaaaau ? from_next + 100 * from_last + 10000 * from_five : -1;
    if (!sosie::is_last_block(call.ticket, gridDim.x)) return;
    if (thread < 2) {
        double sum = 0.0;
        for (unsigned i = 0; i < gridDim.x; ++i) sum += call.partials[2 * i + unsigned(thread)];
        call.sums[thread] = sum;
    }
}

void check_sums(simt::Order order) {
    const int blocks = 7;
    std::vector<int> values(64 * blocks), lanes(values.size());
    std::vector<double> partials(2 * blocks, NAN), sums(2, NAN);
    double expected[2] = {};
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = int(i * 37 % 101);
        expected[0] += values[i];
        expected[1] += double(values[i]) * values[i];
    }
    unsigned ticket = 0;
    simt::launch(order, dim3(blocks), dim3(16, 4), 0, add_up,
                 SumCall{values.data(), partials.data(), sums.data(), &ticket, lanes.data()});
    check(sums[0] == expected[0] && sums[1] == expected[1], "sums over a grid");
    bool right = true;
    for (size_t i = 0; i < lanes.size(); ++i) {
        const int lane = int(i % 32), next = lane < 31 ? lane + 1 : lane;
        const int last = lane > 0 ? lane - 1 : lane;
        right &= lanes[i] == next + 100 * last + 10000 * 5;
    }
    check(right, "warp operations");
}

__global__ void fill_dynamic(int* const count) {
    float* memory = simt::dynamic_shared_memory<float>();
    memory[threadIdx.x] = float(threadIdx.x);
    __syncthreads();
    int found = 0;
    for (unsigned i = 0; i < blockDim.x; ++i) found += memory[i] == float(i);
    found += std::isnan(memory[blockDim.x]);  // nobody wrote there
    if (threadIdx.x == 0) *count = found;
}

}  // namespace

int main() {
    check_half();
    check_bfloat16();
    for (const simt::Order order : {simt::Order::forward, simt::Order::reverse}) {
        check_sums(order);
        int count = 0;
        simt::launch(order, dim3(1), dim3(96), 97 * sizeof(float), fill_dynamic, &count);
        check(count == 97, "dynamic shared memory");
    }
    std::printf("%d failed\n", g_failures);
    return g_failures != 0;
}
