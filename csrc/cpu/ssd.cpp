// SPDX-License-Identifier: Apache-2.0
#include "ssd.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "dispatch.hpp"
#include "tasks.hpp"

namespace sosie {
namespace {

// Elements of a task: enough to make nothing of what starting one costs, few enough that the
// threads finish together.
constexpr int64_t kTaskPixels = 1 << 16;

// Gradients of broadcast weights are added up per task; a task treats this many times as many
// pixels as there are weights, so that those sums are small beside the images.
constexpr int64_t kPixelsPerSum = 16;

// The order in which the axes are walked, outermost first: that of memory, by the first array that
// tells two axes apart.
std::vector<size_t> memory_order(const std::vector<size_t>& axes,
                                 const std::vector<const Strided*>& arrays) {
    const auto inside = [&](size_t a, size_t b) {  // a is walked inside b
        for (const Strided* array : arrays) {
            const int64_t of_a = std::abs(array->strides[a]), of_b = std::abs(array->strides[b]);
            if (of_a != of_b && of_a != 0 && of_b != 0) return of_a < of_b;
        }
        return false;
    };
    std::vector<size_t> order;
    for (const size_t axis : axes) {  // by insertion: the comparison is not transitive
        size_t place = order.size();
        while (place > 0 && inside(order[place - 1], axis)) --place;
        order.insert(order.begin() + std::ptrdiff_t(place), axis);
    }
    return order;
}

// Owns the axes that a problem's `Elements` point to.
class Plan {
  public:
    Plan(const SSDArguments& arguments, bool per_image, const std::vector<const Strided*>& arrays)
        : shape_(arguments.shape), first_(per_image ? 1 : 0) {
        std::vector<size_t> axes;
        for (size_t axis = first_; axis < shape_.size(); ++axis)
            if (shape_[axis] > 1) axes.push_back(axis);
        std::vector<const Strided*> present;
        for (const Strided* array : arrays)
            if (array->data) present.push_back(array);
        order_ = memory_order(axes, present);
        // No reallocation: elements point into them.
        lengths_.reserve(arrays.size());
        strides_.reserve(arrays.size());
    }

    Elements elements(const Strided& array) {
        if (!array.data) return {};
        lengths_.emplace_back();
        strides_.emplace_back();
        std::vector<int64_t>&lengths = lengths_.back(), &strides = strides_.back();
        for (const size_t axis : order_) {
            const int64_t length = shape_[axis], stride = array.strides[axis];
            if (!lengths.empty() && strides.back() == length * stride) {
                lengths.back() *= length;
                strides.back() = stride;
            } else {
                lengths.push_back(length);
                strides.push_back(stride);
            }
        }
        if (lengths.empty()) {
            lengths.push_back(1);
            strides.push_back(1);
        }
        return {
            array.data,     array.dtype,   first_ ? array.strides[0] : 0, int32_t(lengths.size()),
            lengths.data(), strides.data()};
    }

    int64_t images() const { return first_ ? shape_[0] : 1; }
    int64_t pixels() const {
        return std::accumulate(shape_.begin() + std::ptrdiff_t(first_), shape_.end(), int64_t(1),
                               std::multiplies<>());
    }

  private:
    const std::vector<int64_t>& shape_;
    size_t first_;
    std::vector<size_t> order_;
    std::vector<std::vector<int64_t>> lengths_, strides_;
};

SSDProblem problem_of(const SSDArguments& arguments, Plan& plan) {
    return {plan.images(),
            plan.pixels(),
            kTaskPixels,
            plan.elements(arguments.x),
            plan.elements(arguments.y),
            plan.elements(arguments.weight)};
}

// Tasks of one image follow each other; `images` may be 1 where those of the tasks were parts.
SSDWeights sum_images(const std::vector<SSDPartial>& partials, int64_t images, int64_t pixels,
                      bool weighted, double* sums) {
    SSDWeights weights{};
    const size_t per_image = partials.size() / size_t(images);
    std::fill(sums, sums + 2 * images, 0.0);
    for (size_t i = 0; i < partials.size(); ++i) {
        double* sum = sums + 2 * (i / per_image);
        sum[0] += partials[i].sum;
        sum[1] += partials[i].weight;
        weights.lowest = std::min(weights.lowest, partials[i].lowest);
        weights.odd += partials[i].odd;
    }
    if (!weighted)
        for (int64_t i = 0; i < images; ++i) sums[2 * i + 1] = double(pixels);
    return weights;
}

size_t precision(const Strided& x) {
    return x.dtype == DType::f64 ? 1 : 0;
}

// Bytes that fit beside what is read; results of more are not worth keeping.
int64_t cache_bytes() {
#ifdef _SC_LEVEL3_CACHE_SIZE
    static const long found = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (found > 0) return found;
#endif
    return int64_t(32) << 20;
}

int64_t bytes_of(const Strided& array) {
    return !array.data ? 0 : array.dtype == DType::f64 ? 8 : array.dtype == DType::f32 ? 4 : 2;
}

// Sums of the weights that one image's (or part's) pixels share, for one task or for all.
class WeightSums {
  public:
    // `varies`: every image has weights of its own.
    WeightSums(SSDBackward& call, bool varies) : call_(call), varies_(varies) {
        const Elements& grad = call.grad_weight;
        for (int axis = 0; axis < grad.axes; ++axis)
            if (grad.strides[axis] != 0) piece_ *= grad.lengths[axis];
        SSDProblem& p = call.problem;
        p.task_pixels = std::max(p.task_pixels, kPixelsPerSum * piece_);
        tasks_ = (p.pixels + p.task_pixels - 1) / p.task_pixels;
        double* result = static_cast<double*>(grad.data);
        // Small images that share large weights: the tasks' sums would outgrow the images. One
        // thread then adds all to the same.
        in_turn_ = !varies && p.images > 1 && 4 * tasks_ * piece_ > p.pixels;
        // One task for the weights it adds up: where the sums are is where they are wanted.
        in_place_ = in_turn_ || (tasks_ == 1 && (varies || p.images == 1));
        if (!in_place_) pieces_.assign(size_t(p.images * tasks_ * piece_), 0.0);
        std::fill(result, result + (varies ? p.images : 1) * piece_, 0.0);
        call.weight_sums = in_place_ ? result : pieces_.data();
        call.weight_sums_piece = in_turn_ ? 0 : piece_;
    }
    int threads(int allowed) const { return in_turn_ ? 1 : allowed; }
    // In the order of the tasks.
    void add_up() const {
        if (in_place_) return;
        double* result = static_cast<double*>(call_.grad_weight.data);
        for (int64_t task = 0; task < call_.problem.images * tasks_; ++task) {
            const double* piece = pieces_.data() + task * piece_;
            double* to = result + (varies_ ? task / tasks_ * piece_ : 0);
            for (int64_t i = 0; i < piece_; ++i) to[i] += piece[i];
        }
    }

  private:
    const SSDBackward& call_;
    bool varies_, in_turn_, in_place_;
    int64_t piece_ = 1, tasks_;
    std::vector<double> pieces_;
};

}  // namespace

SSDWeights ssd_forward(const SSDArguments& arguments, double* sums, int threads) {
    Plan plan(arguments, arguments.per_image, {&arguments.x, &arguments.y, &arguments.weight});
    const SSDProblem p = problem_of(arguments, plan);
    // float holds no square of a 16-bit difference; double makes sums of integers exact.
    const size_t which = arguments.x.dtype == DType::u16 ? 1 : precision(arguments.x);
    const auto partials = run_tasks(active().ssd->forward[which], p, threads);
    return sum_images(partials, p.images, p.pixels, p.weight.data != nullptr, sums);
}

SSDWeights ssd_backward(const SSDArguments& arguments, const double* upstream,
                        const SSDGradients& gradients, double* sums, int threads) {
    const std::vector<int64_t>& shape = arguments.shape;
    bool broadcast = false;
    if (gradients.weight.data)
        for (size_t axis = 0; axis < shape.size(); ++axis)
            broadcast |= shape[axis] > 1 && gradients.weight.strides[axis] == 0;
    // Parts of one image that have weights of their own are treated like images.
    const bool in_parts = broadcast && !arguments.per_image && gradients.weight.strides[0] != 0;
    Plan plan(arguments, arguments.per_image || in_parts,
              {&arguments.x, &arguments.y, &gradients.x, &gradients.y, &arguments.weight,
               &gradients.weight});
    SSDBackward call{};
    call.problem = problem_of(arguments, plan);
    call.upstream = upstream;
    call.upstream_stride = arguments.per_image ? 2 : 0;
    call.grad_x = plan.elements(gradients.x);
    call.grad_y = plan.elements(gradients.y);
    call.grad_weight = plan.elements(gradients.weight);
    const SSDProblem& p = call.problem;
    const int64_t bytes = bytes_of(gradients.x) + bytes_of(gradients.y) +
                          (broadcast ? 0 : bytes_of(gradients.weight));
    call.stream = p.images * p.pixels * bytes > cache_bytes();
    const auto& kernel = active().ssd->backward[precision(arguments.x)];
    std::vector<SSDPartial> partials;
    if (broadcast) {
        const WeightSums weight_sums(call, call.grad_weight.image_stride != 0);
        partials = run_tasks(kernel, call, weight_sums.threads(threads));
        weight_sums.add_up();
    } else {
        partials = run_tasks(kernel, call, threads);
    }
    const int64_t images = in_parts ? 1 : p.images;
    return sum_images(partials, images, p.images * p.pixels / images, p.weight.data != nullptr,
                      sums);
}

}  // namespace sosie
