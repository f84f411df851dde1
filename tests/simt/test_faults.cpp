// SPDX-License-Identifier: Apache-2.0
//
// A kernel with a fault planted: what the emulator and the sanitizers are for, and the proof that
// they would find it.
//
//     test_faults <fault>    runs the kernel with that fault, in both orders; 0: nothing was found
//
// The kernel blurs an image by sums over rows and columns, with a halo in shared memory, and adds
// up all results. The tests say which build has to find which fault.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/cuda/common.cuh"

namespace {

enum Fault { kNone, kBarrier, kReduction, kEarlyReturn, kHalo, kUnwritten, kBlocks, kWarp, kPack };

constexpr int kTile = 16, kRadius = 2, kSide = kTile + 2 * kRadius;

struct Storage {
    float tile[kSide][kSide], rows[kSide][kTile];
    int of_warps[kTile * kTile / 32];
};

struct Call {
    const float* x;  // (height, width)
    float* y;        // (height, width): sums over 5 x 5 pixels, 0 outside
    int* total;      // of all results, rounded
    int height, width;
};

template <Fault F>
__global__ void blur(const Call call) {
    Storage& shared = sosie::shared_memory<Storage>();
    const int tx = int(threadIdx.x), ty = int(threadIdx.y), thread = ty * kTile + tx;
    const int left = int(blockIdx.x) * kTile, top = int(blockIdx.y) * kTile;
    const bool inside = left + tx < call.width && top + ty < call.height;
    if (F == kEarlyReturn && !inside) return;
    for (int i = thread; i < kSide * kSide; i += kTile * kTile) {
        const int h = top + i / kSide - kRadius, w = left + i % kSide - kRadius;
        const bool exists = h >= 0 && h < call.height && w >= 0 && w < call.width;
        shared.tile[i / kSide][i % kSide] =
            exists || (F == kHalo && h >= call.height) ? call.x[h * call.width + w] : 0.0f;
    }
    if (F != kBarrier) __syncthreads();
    for (int row = ty; row < kSide; row += kTile) {
        float sum = 0.0f;
        for (int k = 0; k <= 2 * kRadius; ++k) sum += shared.tile[row][tx + k];
        shared.rows[row][tx] = sum;
    }
    __syncthreads();
    float sum = 0.0f;
    for (int k = 0; k <= 2 * kRadius; ++k) sum += shared.rows[ty + k][tx];
    const bool skipped = F == kUnwritten && left + tx == call.width - 1;
    if (inside && !skipped) call.y[(top + ty) * call.width + left + tx] = sum;
    if (F == kPack && inside && tx == 1) sosie::load_pack<float, 2>(call.x + left + tx);
    int rounded = inside ? int(sum) : 0;
    if (F != kWarp || ty % 2 == 0)  // half of each warp does not take part
        for (int bits = 16; bits > 0; bits /= 2)
            rounded += __shfl_xor_sync(sosie::kAllLanes, rounded, bits);
    if (thread % 32 == 0) shared.of_warps[thread / 32] = rounded;
    if (F != kReduction) __syncthreads();
    if (thread != 0) return;
    int of_block = 0;
    for (const int of_warp : shared.of_warps) of_block += of_warp;
    if (F == kBlocks)
        *call.total += of_block;
    else
        atomicAdd(call.total, of_block);
}

struct Case {
    const char* name;
    void (*kernel)(Call);
};
constexpr Case kCases[] = {
    {"none", blur<kNone>},           {"missing-barrier", blur<kBarrier>},
    {"reduction", blur<kReduction>}, {"early-return", blur<kEarlyReturn>},
    {"halo", blur<kHalo>},           {"unwritten", blur<kUnwritten>},
    {"blocks", blur<kBlocks>},       {"half-warp", blur<kWarp>},
    {"misaligned", blur<kPack>},
};

// What the kernel gets wrong, or an empty text.
std::string run(const Case& test, simt::Order order) {
    const int height = 18, width = 21;
    std::vector<float> x(size_t(height * width)), y(x.size(), NAN);
    for (size_t i = 0; i < x.size(); ++i) x[i] = float(i * 7919 % 100);
    int total = 0, expected_total = 0;
    const dim3 grid((width + kTile - 1) / kTile, (height + kTile - 1) / kTile);
    try {
        simt::launch(order, grid, dim3(kTile, kTile), 0, test.kernel,
                     Call{x.data(), y.data(), &total, height, width});
    } catch (const simt::Fault& fault) {
        return fault.what();
    }
    for (int h = 0; h < height; ++h)
        for (int w = 0; w < width; ++w) {
            float sum = 0.0f;
            for (int i = std::max(h - kRadius, 0); i <= std::min(h + kRadius, height - 1); ++i)
                for (int j = std::max(w - kRadius, 0); j <= std::min(w + kRadius, width - 1); ++j)
                    sum += x[size_t(i * width + j)];
            expected_total += int(sum);
            // Sums of small integers are exact, in any order; NaN is unequal to all.
            if (!(y[size_t(h * width + w)] == sum))
                return "wrong at (" + std::to_string(h) + ", " + std::to_string(w) + ")";
        }
    return total == expected_total ? "" : "wrong total";
}

}  // namespace

int main(int count, char** arguments) {
    for (const Case& test : kCases) {
        if (count != 2 || test.name != std::string(arguments[1])) continue;
        int found = 0;
        for (const simt::Order order : {simt::Order::forward, simt::Order::reverse}) {
            const std::string what = run(test, order);
            if (!what.empty()) std::printf("found: %s\n", what.c_str());
            found |= !what.empty();
        }
        return found;
    }
    std::printf("expected the name of a fault\n");
    return 2;
}
