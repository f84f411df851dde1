// SPDX-License-Identifier: Apache-2.0
#include "ssim.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "border.hpp"
#include "dispatch.hpp"
#include "tasks.hpp"

namespace sosie {
namespace {

// Tasks of one plane follow each other; so the order of these sums is that of the tasks.
std::vector<SSIMPartial> sum_planes(const std::vector<SSIMPartial>& partials, int64_t planes) {
    std::vector<SSIMPartial> sums(size_t(planes), SSIMPartial{});
    const size_t per_plane = planes ? partials.size() / size_t(planes) : 0;
    for (size_t i = 0; i < partials.size(); ++i) {
        SSIMPartial& sum = sums[i / per_plane];
        sum.value += partials[i].value;
        sum.count += partials[i].count;
        sum.l1 += partials[i].l1;
        sum.pixels += partials[i].pixels;
    }
    return sums;
}

double mean_of(double sum, double count) {
    return count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN();
}

size_t precision(const Array& x) {
    return x.dtype == DType::f64 ? 1 : 0;
}

bool is_volume(const SSIMProblem& p) {
    return p.shape[2] > 1 || p.windows[0].size > 1;
}

size_t coefficient_bytes(const SSIMBackward& call) {
    const SSIMProblem& p = call.problem;
    int64_t positions = p.shape[0] * p.shape[1];
    for (int axis = 0; axis < 3; ++axis)
        positions *= p.shape[2 + axis] - p.windows[axis].crop_before - p.windows[axis].crop_after;
    return size_t(positions) * (call.grad_y.data ? 4 : 3) * (precision(p.x) ? 8 : 4);
}

// Gives `window` its folded taps, in `storage`. The gradient at q gathers from map positions
// p = q - (size - 1 - origin) + k, k = 0 .. size - 1; at p the window's tap q' - p + origin sees
// the pixel, for every place q' of the padded axis that shows q.
void fold(Window& window, int64_t length, Border border, std::vector<double>& storage) {
    const int64_t size = window.size, origin = window.origin, after = size - 1 - origin;
    const bool padded_before = window.crop_before < origin,
               padded_after = window.crop_after < after;
    if (border == Border::zero || (!padded_before && !padded_after)) return;
    const int64_t low = padded_before ? std::min(length, origin + 1) : 0;
    const int64_t high = padded_after ? std::min(length - low, after + 1) : 0;
    window.fold_before = int32_t(low);
    window.fold_after = int32_t(high);
    storage.assign(size_t((low + high) * size), 0.0);
    window.folded = storage.data();
    const auto add = [&](int64_t q, int64_t place) {
        const int64_t row = q < low ? q : q >= length - high ? low + q - (length - high) : -1;
        if (row < 0) return;
        for (int64_t k = 0; k < size; ++k) {
            const int64_t tap = place - (q - after + k) + origin;
            if (tap >= 0 && tap < size) storage[size_t(row * size + k)] += window.taps[tap];
        }
    };
    for (int64_t q = 0; q < length; ++q) add(q, q);
    for (int64_t i = 1; i <= origin; ++i) add(border_position(-i, length, border), -i);
    for (int64_t i = 0; i < after; ++i)
        add(border_position(length + i, length, border), length + i);
}

}  // namespace

void ssim_forward(SSIMForward call, double* values, int threads) {
    const SSIMProblem& p = call.problem;
    const int64_t planes = p.shape[0] * p.shape[1];
    const SSIMKernels& k = *active().ssim;
    const auto& kernel = (is_volume(p) ? k.volume_forward : k.forward)[precision(p.x)];
    const auto sums = sum_planes(run_tasks(kernel, call, threads), planes);
    for (size_t i = 0; i < sums.size(); ++i) values[i] = mean_of(sums[i].value, sums[i].count);
}

void ssim_backward(SSIMBackward call, double* values, double* l1, int threads) {
    SSIMProblem& p = call.problem;
    std::vector<double> folded[3];
    for (int axis = 0; axis < 3; ++axis)
        fold(p.windows[axis], p.shape[2 + axis], p.border, folded[axis]);
    const int64_t planes = p.shape[0] * p.shape[1];
    const SSIMKernels& k = *active().ssim;
    const size_t which = precision(p.x);
    std::vector<SSIMPartial> value_sums, pixel_sums;
    if (is_volume(p)) {
        const auto workspace = std::unique_ptr<char[]>(new char[coefficient_bytes(call)]);
        call.coefficients = workspace.get();
        value_sums = sum_planes(run_tasks(k.volume_coefficients[which], call, threads), planes);
        pixel_sums = sum_planes(run_tasks(k.volume_gradient[which], call, threads), planes);
    } else {
        value_sums = sum_planes(run_tasks(k.backward[which], call, threads), planes);
        pixel_sums = value_sums;
    }
    for (size_t i = 0; i < size_t(planes); ++i) {
        if (values) values[i] = mean_of(value_sums[i].value, value_sums[i].count);
        if (l1) l1[i] = mean_of(pixel_sums[i].l1, pixel_sums[i].pixels);
    }
}

void downsample_forward(const Downsample& call, int threads) {
    run_tasks(active().ssim->downsample_forward[precision(call.full)], call, threads);
}

void downsample_backward(const Downsample& call, int threads) {
    run_tasks(active().ssim->downsample_backward[precision(call.reduced)], call, threads);
}

}  // namespace sosie
