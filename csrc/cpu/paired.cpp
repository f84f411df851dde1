// SPDX-License-Identifier: Apache-2.0
#include "paired.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>

#include "dispatch.hpp"
#include "tasks.hpp"

namespace sosie {
namespace {

size_t precision(const PairedCall& call) {
    return call.operands[kX].dtype == DType::f64 ? 1 : 0;
}

// Whether `inner`, right inside `outer`, goes on where each step of `outer` arrives.
bool continues(const PairedCall& call, const PairedAxis& outer, const PairedAxis& inner) {
    for (int place = 0; place < kPairedPlaces; ++place)
        if (call.operands[place].data != nullptr &&
            outer.strides[place] != inner.strides[place] * inner.size)
            return false;
    return true;
}

bool is_shared(const PairedAxis& axis, PairedPlace gradient) {
    return axis.strides[gradient] == 0 && axis.size != 1;
}

int64_t reach(const PairedAxis& axis) {
    return std::max(std::abs(axis.strides[kX]), std::abs(axis.strides[kY]));
}

// Puts the axes into the order of memory, so that the last one's neighbours lie close together, and
// makes one axis of those that are one in memory. Axes along which x shares its gradient come last
// if `shared_last`, and are merged among themselves only.
void arrange(PairedCall& call, std::vector<PairedAxis> axes, bool shared_last) {
    const auto shared = [&](const PairedAxis& axis) {
        return shared_last && is_shared(axis, kGradX);
    };
    axes.erase(std::remove_if(axes.begin(), axes.end(),
                              [](const PairedAxis& axis) { return axis.size == 1; }),
               axes.end());
    std::stable_sort(axes.begin(), axes.end(), [&](const PairedAxis& a, const PairedAxis& b) {
        return shared(a) != shared(b) ? shared(b) : reach(a) > reach(b);
    });
    std::vector<PairedAxis> merged;
    call.sharing = 1;
    for (const PairedAxis& axis : axes) {
        if (shared(axis)) call.sharing *= axis.size;
        if (!merged.empty() && shared(merged.back()) == shared(axis) &&
            continues(call, merged.back(), axis)) {
            const int64_t size = merged.back().size * axis.size;
            merged.back() = axis;
            merged.back().size = size;
        } else {
            merged.push_back(axis);
        }
    }
    if (merged.empty()) merged.push_back({1, {}});
    if (merged.size() > kPairedAxes)
        throw std::invalid_argument("expected at most " + std::to_string(kPairedAxes) +
                                    " axes that do not lie in memory like one, got " +
                                    std::to_string(merged.size()));
    call.axes = int(merged.size());
    std::copy(merged.begin(), merged.end(), call.axis);
}

void swap_roles(PairedCall& call, std::vector<PairedAxis>& axes) {
    static constexpr std::pair<PairedPlace, PairedPlace> pairs[] = {
        {kX, kY}, {kNormX, kNormY}, {kGradX, kGradY}};
    for (const auto& [first, second] : pairs) {
        std::swap(call.operands[first], call.operands[second]);
        for (PairedAxis& axis : axes) std::swap(axis.strides[first], axis.strides[second]);
    }
}

}  // namespace

void paired_forward(PairedCall call, std::vector<PairedAxis> axes, int threads) {
    arrange(call, std::move(axes), false);
    const PairedKernels& kernels = *active().paired;
    const size_t which = precision(call);
    const int64_t segments = kernels.segments[which](call);
    std::vector<double> sums;
    if (segments > 1) {
        int64_t numbers = 3 * segments;
        for (int a = 0; a < call.axes; ++a) numbers *= call.axis[a].size;
        sums.resize(size_t(numbers));
        call.sums = sums.data();
    }
    run_tasks(kernels.forward[which], call, threads);
    if (segments > 1) kernels.finish[which](call);
}

void paired_backward(PairedCall call, std::vector<PairedAxis> axes, int threads) {
    const PairedKernels& kernels = *active().paired;
    const size_t which = precision(call);
    const PairedPlace gradients[] = {kGradX, kGradY};
    bool apart[2];
    for (int i = 0; i < 2; ++i)
        apart[i] = std::none_of(axes.begin(), axes.end(), [&](const PairedAxis& axis) {
            return is_shared(axis, gradients[i]);
        });
    PairedCall each = call;
    for (int i = 0; i < 2; ++i)
        if (!apart[i]) each.operands[gradients[i]].data = nullptr;
    if (each.operands[kGradX].data || each.operands[kGradY].data) {
        arrange(each, axes, false);
        run_tasks(kernels.gradients[which], each, threads);
    }
    for (int i = 0; i < 2; ++i) {
        PairedCall shared = call;
        std::vector<PairedAxis> own_axes = axes;
        if (i == 1) swap_roles(shared, own_axes);
        shared.operands[kGradY].data = nullptr;
        if (apart[i] || shared.operands[kGradX].data == nullptr) continue;
        arrange(shared, std::move(own_axes), true);
        run_tasks(kernels.shared_gradient[which], shared, threads);
    }
}

}  // namespace sosie
