// SPDX-License-Identifier: Apache-2.0
//
// The kernels of the SSIM family on the emulator: grids of several blocks, for the sanitizers. All
// conventions, dtypes and layouts are tested from Python, with the same kernels.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/cuda/downsample.cuh"
#include "../../csrc/cuda/ssim-backward.cuh"
#include "../../csrc/cuda/ssim-general.cuh"

namespace {

using namespace sosie;

constexpr int kWindow = 11, kReach = kWindow - 1;
constexpr double kC1 = 1e-4, kC2 = 9e-4;

int g_failures = 0;

void check_close(double actual, double expected, double tolerance, const std::string& what) {
    if (std::fabs(actual - expected) <= tolerance) return;
    ++g_failures;
    std::printf("FAILED %s: expected %.9g, got %.9g\n", what.c_str(), expected, actual);
}

Strided strided(const void* data, std::vector<long long> shape, int dtype = kFloat32) {
    Strided array{const_cast<void*>(data), {}, dtype};
    long long size = 1;
    for (int axis = 4; axis >= 0; --axis) {
        array.strides[axis] = size;
        size *= shape[size_t(axis)];
    }
    return array;
}

// One image of one plane with a window of equal taps, cropped to where it lies inside.
struct Images {
    int height, width;
    std::vector<float> x, y, map, gradient;
    std::vector<double> values, l1, partials, counts;
    std::vector<unsigned> tickets;
    std::vector<float> coefficients;
    std::vector<unsigned char> mask;

    Images(int h, int w)
        : height(h), width(w), values(1, NAN), l1(1, NAN), counts(2, NAN), tickets(1) {
        for (int i = 0; i < height * width; ++i) {
            x.push_back(float(i * 37 % 101) / 100);
            y.push_back(float(i * 53 % 97) / 100);
        }
        map.resize(size_t(rows() * columns()), NAN);
        gradient.resize(x.size(), NAN);
        coefficients.resize(3 * map.size(), NAN);
        mask.resize(x.size(), 1);
    }
    int rows() const { return height - kReach; }
    int columns() const { return width - kReach; }

    SSIMCall<float> call(int tile_width, int tile_height, int results_across, int results_down) {
        SSIMCall<float> c{};
        const long long shape[5] = {1, 1, 1, height, width};
        std::copy(shape, shape + 5, c.shape);
        c.x = strided(x.data(), {1, 1, 1, height, width});
        c.y = strided(y.data(), {1, 1, 1, height, width});
        c.values = values.data();
        c.l1 = l1.data();
        c.positions = rows() * columns();
        c.pixels = height * width;
        c.upstream_factor = 1;
        c.windows[kDepth] = {{1}, 1, 0, 0, 0};
        for (int axis : {kHeight, kWidth}) {
            c.windows[axis] = {{}, kWindow, kWindow / 2, kWindow / 2, kWindow / 2};
            for (int k = 0; k < kWindow; ++k) c.windows[axis].taps[k] = 1.0f / kWindow;
        }
        c.border = kZero;
        c.kind = kSimilarity;
        c.stride = 1;
        c.scale = c.twice_center = c.covariance = 1;
        c.c1 = float(kC1);
        c.c2 = float(kC2);
        c.least_weight = 1e-3f;
        c.tile_width = tile_width;
        c.tile_height = tile_height;
        c.tiles_across = (results_across + tile_width - 1) / tile_width;
        c.tiles_down = (results_down + tile_height - 1) / tile_height;
        partials.assign(size_t(c.tiles_across * c.tiles_down * kSums), NAN);
        c.partials = partials.data();
        tickets[0] = 0;
        c.tickets = tickets.data();
        return c;
    }

    // The definition, of the images moved by `step` times a direction of x.
    double mean(double step) const {
        double sum = 0;
        for (int r = 0; r < rows(); ++r)
            for (int c = 0; c < columns(); ++c) sum += similarity_at(r, c, step);
        return sum / (rows() * columns());
    }
    double direction(size_t i) const { return double(i * 29 % 83) / 83 - 0.5; }
    double similarity_at(int row, int column, double step) const {
        double a = 0, b = 0, aa = 0, bb = 0, ab = 0;
        for (int i = 0; i < kWindow; ++i)
            for (int j = 0; j < kWindow; ++j) {
                const size_t at = size_t((row + i) * width + column + j);
                const double u = x[at] + step * direction(at), v = y[at];
                a += u, b += v, aa += u * u, bb += v * v, ab += u * v;
            }
        const double n = kWindow * kWindow;
        a /= n, b /= n, aa = aa / n - a * a, bb = bb / n - b * b, ab = ab / n - a * b;
        return (2 * a * b + kC1) * (2 * ab + kC2) / ((a * a + b * b + kC1) * (aa + bb + kC2));
    }
    double mean_difference() const {
        double sum = 0;
        for (size_t i = 0; i < x.size(); ++i) sum += std::fabs(double(x[i]) - y[i]);
        return sum / double(x.size());
    }

    // Variances are differences of moments, wrong by a few 2^-24 over C2.
    void check_values(const std::string& what) const {
        check_close(values[0], mean(0), 1e-5, what + " mean");
        for (int r = 0; r < rows(); ++r)
            for (int c = 0; c < columns(); ++c)
                check_close(map[size_t(r * columns() + c)], similarity_at(r, c, 0), 1e-4,
                            what + " map");
    }
    // Along a direction, where errors of central differences are 1e-6 of the slope and less.
    void check_gradient(const std::string& what) const {
        double slope = 0;
        for (size_t i = 0; i < x.size(); ++i) slope += direction(i) * gradient[i];
        check_close(slope, (mean(1e-4) - mean(-1e-4)) / 2e-4, 1e-4, what + " gradient");
        check_close(l1[0], mean_difference(), 1e-6, what + " absolute difference");
    }
};

int blocks_of(const SSIMCall<float>& call) {
    return call.tiles_across * call.tiles_down;
}

void check_streamed(simt::Order order) {
    Images images(41, 90);
    SSIMCall<float> call = images.call(64 - kReach, 16, images.columns(), images.rows());
    call.map = strided(images.map.data(), {1, 1, 1, images.rows(), images.columns()});
    const auto bytes = [](int planes) { return size_t(kRows * planes * (64 + 8)) * sizeof(float); };
    simt::launch(order, dim3(unsigned(blocks_of(call))), dim3(64), bytes(4),
                 ssim_forward<float, kWindow>, call);
    images.check_values("streamed");

    call = images.call(64 - 2 * kReach, 24, images.width, images.height);
    call.grad_x = strided(images.gradient.data(), {1, 1, 1, images.height, images.width});
    simt::launch(order, dim3(unsigned(blocks_of(call))), dim3(64), bytes(7),
                 ssim_backward<float, kWindow, false>, call);
    check_close(images.values[0], images.mean(0), 1e-5, "streamed mean beside the gradient");
    images.check_gradient("streamed");
}

void check_general(simt::Order order) {
    Images images(30, 37);
    SSIMCall<float> call = images.call(images.width, 8, images.width, images.height);
    call.mask = strided(images.mask.data(), {1, 1, 1, images.height, images.width}, kUint8);
    call.counts = images.counts.data();
    simt::launch(order, dim3(unsigned(call.tiles_down)), dim3(64), 0, ssim_count<float>, call);
    check_close(images.counts[0], images.rows() * images.columns(), 0, "valid centres");
    check_close(images.counts[1], images.height * images.width, 0, "valid pixels");

    const Strided mask = call.mask;
    const int side = 16;
    const auto bytes = [&](int planes, int taps) {
        const int seen = side + kWindow - 1;
        return size_t(planes * seen * ((seen | 1) + ((side + 3) | 1)) + taps) * sizeof(float);
    };
    call = images.call(side, side, images.columns(), images.rows());
    call.mask = mask;
    call.counts = images.counts.data();
    call.map = strided(images.map.data(), {1, 1, 1, images.rows(), images.columns()});
    call.coefficients = images.coefficients.data();
    simt::launch(order, dim3(unsigned(blocks_of(call))), dim3(64), bytes(5, 0),
                 ssim_general_forward<float, true>, call);
    images.check_values("general");

    call = images.call(side, side, images.width, images.height);
    call.coefficients = images.coefficients.data();
    call.grad_x = strided(images.gradient.data(), {1, 1, 1, images.height, images.width});
    simt::launch(order, dim3(unsigned(blocks_of(call))), dim3(64),
                 bytes(3, 2 * (side + 3) * kWindow + 1), ssim_general_gradient<float, false>, call);
    images.check_gradient("general");
}

void check_boxes(simt::Order order) {
    const int height = 18, width = 70;
    std::vector<float> full, reduced(size_t(height * width / 4), NAN),
        back(size_t(height * width), NAN);
    for (int i = 0; i < height * width; ++i) full.push_back(float(i * 31 % 67));
    Downsample call{
        {1, 1, 1, height, width}, {1, 1, 1, height / 2, width / 2}, {}, {}, {}, {}, {}, kZero};
    call.full = strided(full.data(), {1, 1, 1, height, width});
    call.reduced = strided(reduced.data(), {1, 1, 1, height / 2, width / 2});
    const long long padded[3] = {1, height, width};
    std::copy(padded, padded + 3, call.padded);
    call.factors[0] = 1;
    call.factors[1] = call.factors[2] = 2;
    const dim3 block(kDownsampleLanes, kDownsampleRows);
    simt::launch(order, dim3(2), block, 0, downsample_forward<float>, call);
    for (int r = 0; r < height / 2; ++r)
        for (int c = 0; c < width / 2; ++c) {
            const float* at = &full[size_t(2 * r * width + 2 * c)];
            check_close(reduced[size_t(r * width / 2 + c)],
                        (double(at[0]) + at[1] + at[width] + at[width + 1]) / 4, 1e-5, "boxes");
        }
    call.full = strided(back.data(), {1, 1, 1, height, width});
    simt::launch(order, dim3(3), block, 0, downsample_backward<float>, call);
    for (int r = 0; r < height; ++r)
        for (int c = 0; c < width; ++c)
            check_close(back[size_t(r * width + c)],
                        reduced[size_t(r / 2 * (width / 2) + c / 2)] / 4, 1e-5, "adjoint of boxes");
}

struct PlaceCall {
    long long shape[5];
    unsigned block;
    RowPlace* place;
};

__global__ void place_of_block(const PlaceCall call) {
    const RowPlace at = row_place(call.shape, call.block);
    if (linear_thread() == 0) *call.place = at;
}

// Few planes of few rows, and yet more than 2^31 rows in all.
void check_many_rows(simt::Order order) {
    RowPlace at{};
    PlaceCall call{{1 << 15, 2, 2, (1 << 14) + 2, 130}, 0, &at};
    const long long blocks = call.shape[0] * 4 * call.shape[3] / kDownsampleRows * 2;
    call.block = unsigned(blocks - 1);
    simt::launch(order, dim3(1), dim3(kDownsampleLanes, kDownsampleRows), 0, place_of_block, call);
    check_close(at.exists, 1, 0, "the last row exists");
    check_close(at.n, call.shape[0] - 1.0, 0, "its image");
    check_close(at.c + 2 * at.d, 3, 0, "its channel and slice");
    check_close(at.h, call.shape[3] - double(kDownsampleRows), 0, "its place in the slice");
    check_close(at.column, kDownsampleColumns, 0, "its first column");
    check_close(at.end, 130, 0, "its last column");
}

}  // namespace

int main() {
    for (const simt::Order order : {simt::Order::forward, simt::Order::reverse}) {
        check_streamed(order);
        check_general(order);
        check_boxes(order);
        check_many_rows(order);
    }
    if (g_failures == 0) std::printf("all as defined\n");
    return g_failures == 0 ? 0 : 1;
}
