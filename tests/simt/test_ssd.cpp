// SPDX-License-Identifier: Apache-2.0
//
// Weighted squared differences on the emulator: grids of several blocks, for the sanitizers. All
// shapes, dtypes and layouts are tested from Python, with the same kernels.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/cuda/ssd.cuh"

namespace {

using namespace sosie;

int g_failures = 0;

void check_close(double actual, double expected, const std::string& what) {
    // Sums of a few thousand products in float.
    if (std::fabs(actual - expected) <= 1e-5 * std::fabs(expected)) return;
    ++g_failures;
    std::printf("FAILED %s: expected %.9g, got %.9g\n", what.c_str(), expected, actual);
}

StridedArray array_of(const void* data, long long image_stride, std::vector<long long> strides,
                      int dtype = kFloat32) {
    StridedArray array{const_cast<void*>(data), image_stride, {}, dtype};
    std::copy(strides.begin(), strides.end(), array.strides);
    return array;
}

// Images (2, height, width) of which every second column counts; a weight per row.
struct Images {
    long long height, width;
    bool packed;  // all columns count, and are read several at a time
    std::vector<float> x, y, weight;
    std::vector<double> sums;

    Images(long long h, long long w, bool p) : height(h), width(w), packed(p), sums(4) {
        const long long step = packed ? 1 : 2;
        for (long long i = 0; i < 2 * height * width * step; ++i) {
            x.push_back(float(i * 37 % 101) / 100);
            y.push_back(float(i * 53 % 97) / 100);
        }
        for (long long i = 0; i < height; ++i) weight.push_back(float(i % 7) / 3);
        for (size_t i = 0; i < 2; ++i)
            for (long long r = 0; r < height; ++r)
                for (long long c = 0; c < width; ++c) {
                    const double d = difference(i, r, c), v = weight[size_t(r)];
                    sums[2 * i] += v * d * d;
                    sums[2 * i + 1] += v;
                }
    }
    size_t index(size_t image, long long row, long long column) const {
        return (image * size_t(height) + size_t(row)) * size_t(width) * (packed ? 1 : 2) +
               size_t(column) * (packed ? 1 : 2);
    }
    double difference(size_t image, long long row, long long column) const {
        const size_t i = index(image, row, column);
        return double(x[i]) - y[i];
    }
    SSDForward problem() const {
        const long long step = packed ? 1 : 2, row = width * step;
        SSDForward p{};
        p.images = 2;
        p.axes = {height * width, {height, width}, 2};
        p.x = array_of(x.data(), height * row, {row, step});
        p.y = array_of(y.data(), height * row, {row, step});
        p.weight = array_of(weight.data(), 0, {1, 0});
        p.pack = packed ? kSSDPack<float> : 1;
        const long long packs = p.axes.count / p.pack;
        p.blocks = unsigned(divide_up(packs, kSSDThreads * kSSDPacks));
        return p;
    }
};

void check_images(const Images& images, simt::Order order, const std::string& what) {
    SSDForward p = images.problem();
    std::vector<double> partials(4 * p.blocks, NAN), sums(4, NAN);
    std::vector<unsigned> tickets(2);
    std::vector<float> means(2, NAN);
    p.partials = partials.data();
    p.tickets = tickets.data();
    p.sums = sums.data();
    p.values = means.data();
    p.values_dtype = kFloat32;
    p.mean = 1;
    const dim3 grid(2 * p.blocks), block(kSSDThreads);
    simt::launch(order, grid, block, 0, ssd_forward<float, true>, p);
    for (size_t i = 0; i < 4; ++i) check_close(sums[i], images.sums[i], what + " forward");
    for (size_t i = 0; i < 2; ++i)
        check_close(means[i], images.sums[2 * i] / images.sums[2 * i + 1], what + " mean");

    const long long row = images.width;
    std::vector<float> grad_x(2 * size_t(images.height * row), NAN), grad_y(grad_x);
    std::vector<double> upstream = {2.0, 0.5, -3.0, 1.0};
    std::fill(tickets.begin(), tickets.end(), 0);
    SSDBackward b{};
    b.forward = p;
    b.upstream = upstream.data();
    b.upstream_stride = 2;
    b.factor = 1.0;
    b.grad_x = array_of(grad_x.data(), images.height * row, {row, 1});
    b.grad_y = array_of(grad_y.data(), images.height * row, {row, 1});
    simt::launch(order, grid, block, 0, ssd_backward<float, true>, b);
    for (size_t i = 0; i < 2; ++i)
        for (long long r = 0; r < images.height; ++r)
            for (long long c = 0; c < images.width; ++c) {
                const double expected =
                    2 * upstream[2 * i] * images.weight[size_t(r)] * images.difference(i, r, c);
                const size_t at = (i * size_t(images.height) + size_t(r)) * size_t(row) + size_t(c);
                check_close(grad_x[at], expected, what + " gradient of x");
                check_close(grad_y[at], -expected, what + " gradient of y");
            }
    for (size_t i = 0; i < 4; ++i) check_close(sums[i], images.sums[i], what + " sums, backward");
}

// One weight per row, or one for all: by lanes of neighbours and by whole blocks.
void check_weights(const Images& images, bool per_row, simt::Order order) {
    const SSDForward p = images.problem();
    std::vector<double> upstream = {2.0, 0.5, -3.0, 1.0};
    SSDWeightBackward b{};
    const long long image = p.x.step, row = p.x.strides[0], step = p.x.strides[1];
    if (per_row) {
        b.kept = {images.height, {images.height}, 1};
        b.kept_x = array_of(p.x.data, 0, {row});
        b.kept_y = array_of(p.y.data, 0, {row});
        b.kept_weight = array_of(p.weight.data, 0, {1});
        b.kept_upstream = array_of(upstream.data(), 0, {0}, kFloat64);
        b.summed = {2 * images.width, {2, images.width}, 2};
        b.summed_x = array_of(p.x.data, 0, {image, step});
        b.summed_y = array_of(p.y.data, 0, {image, step});
        b.summed_upstream = array_of(upstream.data(), 0, {2, 0}, kFloat64);
        b.lanes = 32;
    } else {
        b.kept = {1, {1}, 1};
        b.kept_x = array_of(p.x.data, 0, {1});
        b.kept_y = array_of(p.y.data, 0, {1});
        b.kept_weight = array_of(p.weight.data, 0, {1});
        b.kept_upstream = array_of(upstream.data(), 0, {0}, kFloat64);
        b.summed = {2 * images.height * images.width, {2, images.height, images.width}, 3};
        b.summed_x = array_of(p.x.data, 0, {image, row, step});
        b.summed_y = array_of(p.y.data, 0, {image, row, step});
        b.summed_upstream = array_of(upstream.data(), 0, {2, 0, 0}, kFloat64);
        b.lanes = 1;
    }
    const size_t groups = size_t(divide_up(b.kept.count, b.lanes));
    b.splits = 3;
    std::vector<double> partials(groups * 3 * size_t(b.lanes), NAN);
    std::vector<unsigned> tickets(groups);
    std::vector<float> gradient(size_t(b.kept.count), NAN);
    b.factor = 1.0;
    b.grad_weight = array_of(gradient.data(), 0, {});
    b.partials = partials.data();
    b.tickets = tickets.data();
    simt::launch(order, dim3(unsigned(groups) * 3), dim3(kSSDThreads), 0,
                 ssd_weight_backward<float>, b);
    std::vector<double> expected(gradient.size());
    for (size_t i = 0; i < 2; ++i)
        for (long long r = 0; r < images.height; ++r)
            for (long long c = 0; c < images.width; ++c) {
                const double d = images.difference(i, r, c);
                expected[per_row ? size_t(r) : 0] += upstream[2 * i] * d * d + upstream[2 * i + 1];
            }
    for (size_t i = 0; i < gradient.size(); ++i)
        check_close(gradient[i], expected[i],
                    per_row ? "gradient of row weights" : "of one weight");
}

}  // namespace

int main() {
    const Images strided(50, 61, false), packed(70, 124, true);
    for (const simt::Order order : {simt::Order::forward, simt::Order::reverse}) {
        check_images(strided, order, "strided");
        check_images(packed, order, "packed");
        check_weights(strided, true, order);
        check_weights(packed, false, order);
    }
    std::printf("%d failed\n", g_failures);
    return g_failures != 0;
}
