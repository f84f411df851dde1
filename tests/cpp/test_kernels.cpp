// SPDX-License-Identifier: Apache-2.0
//
// The kernels of every instruction set that runs here against the naive definitions: sizes on both
// sides of every vector's and every strip's end, borders, crops, strides, dtypes, layouts, masks,
// both precisions, forward and backward. Needs no Python; this is what sanitizers and emulators
// run.
//
// Usage: test_kernels [number of random cases]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/ssim.hpp"
#include "arrays.hpp"
#include "checks.hpp"
#include "naive.hpp"

namespace {

using sosie::Border;
using sosie::Downsample;
using sosie::DType;
using sosie::Kind;
using sosie::SSIMBackward;
using sosie::SSIMForward;
using sosie::SSIMProblem;
using test::check_close;
using test::check_true;
using test::each_isa;
using test::fail;
using test::Layout;
using test::Random;
using test::TestArray;

void check_equal_plane(const TestArray& actual, const naive::Values& expected,
                       const std::string& what) {
    check_close(actual.plane(0), expected, 0, what);
}

double largest(const naive::Values& values) {
    double result = 0;
    for (const double v : values) result = std::max(result, std::fabs(v));
    return result;
}

// -------------------------------------------------------------------------------------- one case

enum class Shape { gaussian, uniform, lopsided };
enum class Crop { none, window, some };
enum class Holes { no_mask, scattered, block, everything };

struct Case {
    int64_t shape[5] = {1, 1, 1, 1, 1};
    int window_size[3] = {1, 1, 1};
    Shape window = Shape::gaussian;
    Border border = Border::zero;
    Crop crop = Crop::none;
    int stride = 1;
    Kind kind = Kind::ssim;
    DType dtype = DType::f32;
    Layout layout = Layout::contiguous;
    Holes holes = Holes::no_mask;
    bool broadcast_mask = false;
    double epsilon = 0, covariance_scale = 1, window_sum = 1;
    bool clamp_variance = false, clamp_value = false;

    bool is_double() const { return dtype == DType::f64; }
    DType compute() const { return is_double() ? DType::f64 : DType::f32; }
    double data_range() const {
        return dtype == DType::u8 ? 255.0 : dtype == DType::u16 ? 65535.0 : 1.0;
    }
    std::string text() const {
        static const char* windows[] = {"gaussian", "uniform", "lopsided"};
        static const char* borders[] = {"zero", "reflect", "symmetric", "replicate"};
        static const char* crops[] = {"uncropped", "valid", "cropped"};
        static const char* masks[] = {"no mask", "scattered mask", "block mask", "empty mask"};
        char out[300];
        std::snprintf(
            out, sizeof out,
            "(%d, %d, %d, %d, %d) %s %s, window %dx%dx%d %s, %s %s, stride %d, %s, %s%s%s%s%s%s",
            int(shape[0]), int(shape[1]), int(shape[2]), int(shape[3]), int(shape[4]),
            test::name_of(dtype), test::name_of(layout), window_size[0], window_size[1],
            window_size[2], windows[int(window)], borders[int(border)], crops[int(crop)], stride,
            kind == Kind::ssim ? "ssim" : "cs", masks[int(holes)], epsilon > 0 ? ", epsilon" : "",
            covariance_scale > 1 ? ", sample" : "", window_sum != 1 ? ", other sum" : "",
            clamp_variance ? ", clamped variance" : "", clamp_value ? ", clamped value" : "");
        return out;
    }
};

naive::Values make_taps(Shape shape, int size, Random& random) {
    naive::Values taps;
    double sum = 0;
    for (int k = 0; k < size; ++k) {
        // As wide as this, a window whose corner alone is valid still has a weight worth dividing
        // by.
        const double offset = (k - (size - 1) / 2) / (size / 4.0);
        taps.push_back(shape == Shape::uniform    ? 1.0
                       : shape == Shape::lopsided ? 0.2 + random.uniform()
                                                  : std::exp(-0.5 * offset * offset));
        sum += taps.back();
    }
    for (double& tap : taps) tap /= sum;
    return taps;
}

// Pixels with structure: y is x, dimmed, with noise.
double pixel(const Case& c, double value) {
    switch (c.dtype) {
        case DType::u8:
        case DType::u16: return std::floor(value * c.data_range() + 0.5);
        case DType::f16: return std::floor(value * 1024) / 1024;  // exact in 11 bits
        case DType::bf16: return std::floor(value * 128) / 128;   // exact in 8 bits
        case DType::f32: return double(float(value));
        case DType::f64: return value;
    }
    return value;
}

// A case's arrays, and what the definitions make of them; shared by all instruction sets.
class Experiment {
  public:
    Experiment(const Case& c, Random& random)
        : c_(c),
          text_(c.text()),
          x_(c.shape, c.dtype, c.layout),
          y_(c.shape, c.dtype, c.layout),
          mask_(c.shape, DType::u8, c.broadcast_mask ? Layout::broadcast : Layout::contiguous) {
        fill(random);
        describe(random);
        expect(random);
    }

    void run(int threads) const {
        check_forward(threads);
        check_plane_gradient(threads);
        check_map_gradient(threads);
    }

  private:
    // Tolerances. Double: rounding of E[x^2] - E[x]^2 over C2, 1e-16 / 9e-4, and sums of a few
    // hundred terms. Float: the same with 6e-8 and the centred form, which loses no digit to the
    // mean, unless the window does not sum to 1; under a mask a division by small weights comes on
    // top. A mean of few positions is no better than the map. Half results are rounded to 11 and 8
    // bits. Images smaller than their window are nearly constant to it, so that all this weighs a
    // little more here than on photographs.
    double loss_of_digits() const { return !c_.is_double() && c_.window_sum != 1 ? 20 : 1; }
    double map_tolerance() const {
        return loss_of_digits() * (c_.is_double()               ? 1e-11
                                   : c_.holes == Holes::no_mask ? 3e-5
                                                                : 1e-4);
    }
    double gradient_tolerance(const std::vector<naive::Values>& expected) const {
        double scale = 0.3;  // where little varies, what is left are differences of terms of 1 / C2
        for (const naive::Values& plane : expected) scale = std::max(scale, largest(plane));
        const double relative = c_.is_double()            ? 1e-10
                                : c_.dtype == DType::f16  ? 1e-3
                                : c_.dtype == DType::bf16 ? 8e-3
                                                          : 3e-4;
        return loss_of_digits() * relative * scale;
    }

    void fill(Random& random) {
        const int64_t height = c_.shape[3], width = c_.shape[4], plane = x_.plane_size();
        for (int64_t i = 0; i < x_.size(); ++i) {
            const int64_t h = i / width % height, w = i % width;
            bool valid = true;
            if (c_.holes == Holes::scattered) valid = random.chance(0.7);
            if (c_.holes == Holes::block) valid = h < height / 3 || w < width / 4;
            if (c_.holes == Holes::everything)
                valid = i / plane % 2 == 1;  // planes 0, 2, .. have none
            mask_.set(i, valid);
        }
        for (int64_t i = 0; i < x_.size(); ++i) {
            const double wave =
                0.5 + 0.3 * std::sin(0.3 * double(i % width) + 0.2 * double(i / width));
            const double x = wave + 0.2 * (random.uniform() - 0.5);
            const double y = 0.1 + 0.75 * x + 0.15 * random.uniform();
            x_.set(i, pixel(c_, x));
            y_.set(i, pixel(c_, y));
        }
        // What stands at an invalid pixel is nobody's business.
        if (c_.holes == Holes::no_mask || c_.layout == Layout::broadcast) return;
        const bool integers = c_.dtype == DType::u8 || c_.dtype == DType::u16;
        for (int64_t i = 0; i < x_.size(); ++i)
            if (mask_.get(i) == 0) x_.set(i, integers ? 255 : std::nan(""));
    }

    void describe(Random& random) {
        problem_ = SSIMProblem{};
        std::copy(c_.shape, c_.shape + 5, problem_.shape);
        problem_.x = x_.array();
        problem_.y = y_.array();
        if (c_.holes != Holes::no_mask) problem_.mask = mask_.array();
        for (int axis = 0; axis < 3; ++axis) {
            const int size = c_.window_size[axis];
            taps_[axis] = make_taps(size > 1 ? c_.window : Shape::uniform, size, random);
            const int origin = (size - 1) / 2, after = size - 1 - origin;
            const int room = int(c_.shape[2 + axis] - 1) / 2;  // of a crop that leaves one position
            int low = 0, high = 0;
            if (c_.crop == Crop::window) low = origin, high = after;
            if (c_.crop == Crop::some) {
                low = int(random.between(0, std::min(room, size)));
                high = int(random.between(0, std::min(room, size)));
            }
            problem_.windows[axis] = {taps_[axis].data(), size, origin, low, high, nullptr, 0, 0};
        }
        const double range = c_.data_range();
        problem_.border = c_.border;
        problem_.kind = c_.kind;
        problem_.stride = c_.stride;
        int exponent;
        std::frexp(range, &exponent);
        problem_.scale = range == 1 ? 1 : std::ldexp(1.0, -exponent);
        problem_.center = range / 2;
        problem_.window_sum = c_.window_sum;
        problem_.c1 = 1e-4 * range * range;
        problem_.c2 = 9e-4 * range * range;
        problem_.epsilon = c_.epsilon * std::pow(range, 4);
        problem_.covariance_scale = c_.covariance_scale;
        problem_.clamp_variance = c_.clamp_variance;
        problem_.clamp_value = c_.clamp_value;
        problem_.lowest = 0.3;
        problem_.highest = 0.8;
    }

    void expect(Random& random) {
        const int64_t planes = c_.shape[0] * c_.shape[1];
        const int64_t positions = naive::map_size(problem_).count();
        for (int64_t i = 0; i < planes; ++i) {
            const naive::Values valid = mask_.plane(i);
            const bool masked = c_.holes != Holes::no_mask;
            naive::Plane plane{x_.plane(i), y_.plane(i), std::vector<bool>(valid.size(), true),
                               masked};
            double pixels = 0, l1 = 0;
            for (size_t q = 0; q < valid.size(); ++q) {
                plane.valid[q] = !masked || valid[q] != 0;
                pixels += plane.valid[q];
                l1 += plane.valid[q] ? std::fabs(plane.x[q] - plane.y[q]) : 0;
            }
            const naive::Forward forward = naive::forward(problem_, plane);
            means_.push_back(forward.mean);
            maps_.push_back(forward.map);
            l1_.push_back(pixels > 0 ? l1 / pixels : std::nan(""));

            // Gradients of a size that float16 holds with all its bits.
            plane_upstream_.push_back(pixel_gradient(random) * c_.data_range());
            l1_weights_.push_back(pixel_gradient(random));
            naive::Values upstream;
            for (int64_t p = 0; p < positions; ++p)
                upstream.push_back(pixel_gradient(random) * c_.data_range());
            const naive::Gradients by_mean =
                naive::backward(problem_, plane, {plane_upstream_.back()}, false);
            const naive::Gradients by_map = naive::backward(problem_, plane, upstream, true);
            map_upstream_.push_back(upstream);
            by_mean_.push_back(by_mean.x);
            for (size_t q = 0; q < valid.size(); ++q) {
                const double d = plane.x[q] - plane.y[q];
                if (plane.valid[q]) by_mean_.back()[q] += l1_weights_.back() * ((d > 0) - (d < 0));
            }
            by_map_x_.push_back(by_map.x);
            by_map_y_.push_back(by_map.y);
        }
    }
    // In 1/64, so that float holds it.
    static double pixel_gradient(Random& random) { return double(random.between(-64, 64)) / 64; }

    void check_forward(int threads) const {
        const naive::Size map = naive::map_size(problem_);
        const int64_t shape[5] = {c_.shape[0], c_.shape[1], map.d, map.h, map.w};
        TestArray out(shape, c_.compute());
        naive::Values means(means_.size()), means_alone(means_.size());
        sosie::ssim_forward({problem_, out.array()}, means.data(), threads);
        sosie::ssim_forward({problem_, {}}, means_alone.data(), threads);
        check_close(means, means_, map_tolerance(), text_ + ": mean");
        check_close(means_alone, means, 0, text_ + ": mean without a map");
        for (size_t i = 0; i < maps_.size(); ++i)
            check_close(out.plane(int64_t(i)), maps_[i], map_tolerance(), text_ + ": map");
    }

    // dLoss/dmean and the absolute difference, for x alone, as a training loop asks for it.
    void check_plane_gradient(int threads) const {
        const int64_t shape[5] = {c_.shape[0], c_.shape[1], 1, 1, 1};
        TestArray numbers(shape, c_.compute());
        for (size_t i = 0; i < plane_upstream_.size(); ++i)
            numbers.set(int64_t(i), plane_upstream_[i]);
        sosie::Array upstream = numbers.array();
        for (int axis = 2; axis < 5; ++axis) upstream.strides[axis] = 0;
        TestArray grad_x(c_.shape, gradient_dtype(), gradient_layout());
        naive::Values means(means_.size()), l1(means_.size());
        SSIMBackward call{};
        call.problem = problem_;
        call.upstream = upstream;
        call.grad_x = grad_x.array();
        call.l1_weights = l1_weights_.data();
        sosie::ssim_backward(call, means.data(), l1.data(), threads);
        check_close(means, means_, map_tolerance(), text_ + ": mean beside the gradient");
        check_close(l1, l1_, 1e-6 * c_.data_range(), text_ + ": absolute difference");
        check_gradient(grad_x, by_mean_, ": gradient of the mean");
    }

    void check_map_gradient(int threads) const {
        const naive::Size map = naive::map_size(problem_);
        const int64_t shape[5] = {c_.shape[0], c_.shape[1], map.d, map.h, map.w};
        TestArray upstream(shape, c_.compute());
        for (int64_t i = 0; i < upstream.size(); ++i)
            upstream.set(i, map_upstream_[size_t(i / map.count())][size_t(i % map.count())]);
        TestArray grad_x(c_.shape, gradient_dtype(), gradient_layout());
        TestArray grad_y(c_.shape, gradient_dtype(), Layout::flipped);
        SSIMBackward call{};
        call.problem = problem_;
        call.upstream = upstream.array();
        call.upstream_is_map = true;
        call.grad_x = grad_x.array();
        call.grad_y = grad_y.array();
        sosie::ssim_backward(call, nullptr, nullptr, threads);
        check_gradient(grad_x, by_map_x_, ": gradient of the map by x");
        check_gradient(grad_y, by_map_y_, ": gradient of the map by y");
    }

    DType gradient_dtype() const {
        return c_.dtype == DType::u8 || c_.dtype == DType::u16 ? DType::f32 : c_.dtype;
    }
    Layout gradient_layout() const {
        return c_.layout == Layout::channels_last ? Layout::channels_last : Layout::contiguous;
    }
    void check_gradient(const TestArray& actual, const std::vector<naive::Values>& expected,
                        const char* what) const {
        const double tolerance = gradient_tolerance(expected);
        for (size_t i = 0; i < expected.size(); ++i)
            check_close(actual.plane(int64_t(i)), expected[i], tolerance, text_ + what);
        if (c_.holes == Holes::no_mask) return;
        for (int64_t i = 0; i < actual.size(); ++i)
            if (mask_.get(i) == 0 && actual.get(i) != 0)
                return fail(text_ + what + ": not exactly 0 at an invalid pixel");
    }

    Case c_;
    std::string text_;
    TestArray x_, y_, mask_;
    SSIMProblem problem_;
    naive::Values taps_[3];
    naive::Values means_, l1_, plane_upstream_, l1_weights_;
    std::vector<naive::Values> maps_, map_upstream_, by_mean_, by_map_x_, by_map_y_;
};

// -------------------------------------------------------------------------------------- the cases

void run_case(const Case& c, Random& random, std::initializer_list<int> threads = {1}) {
    const Experiment experiment(c, random);
    each_isa([&] {
        for (const int count : threads) experiment.run(count);
    });
}

void set_image(Case& c, int64_t height, int64_t width, int window) {
    c.shape[3] = height;
    c.shape[4] = width;
    c.window_size[1] = c.window_size[2] = window;
}

// Every width around the ends of vectors of 2 to 16 lanes, and blocks of them.
void test_widths(Random& random) {
    for (const DType dtype : {DType::f32, DType::f64})
        for (const int64_t width :
             {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129})
            for (const int window : {3, 11}) {
                Case c;
                c.dtype = dtype;
                set_image(c, random.between(1, 6), width, window);
                c.border = random.pick(
                    {Border::zero, Border::reflect, Border::symmetric, Border::replicate});
                run_case(c, random);
            }
}

// Images of more than one strip of columns or rows: 512 float columns, 128 and 256 rows a task.
void test_large(Random& random) {
    const std::pair<int64_t, int64_t> sizes[] = {{3, 1100}, {530, 5}, {140, 37}, {260, 520}};
    for (const auto& [height, width] : sizes)
        for (const DType dtype : {DType::f32, DType::f64})
            for (const bool valid : {false, true}) {
                if (height * width > 100000 && valid == (dtype == DType::f64)) continue;
                Case c;
                c.dtype = dtype;
                set_image(c, height, width, 3);
                c.window = random.pick({Shape::gaussian, Shape::uniform});
                c.border = random.pick({Border::zero, Border::reflect});
                c.crop = valid ? Crop::window : Crop::none;
                c.stride = valid ? 4 : 1;
                c.holes = random.pick({Holes::no_mask, Holes::scattered});
                run_case(c, random, {1, 3});
            }
}

int64_t random_size(Random& random) {
    return random.pick<int64_t>({1, 2, 5, 7, 8, 9, 13, 15, 16, 17, 19, 24, 31, 32, 33});
}

Case random_case(Random& random) {
    Case c;
    const bool volume = random.chance(0.25);
    c.shape[0] = random.between(1, 2);
    c.shape[1] = random.between(1, 3);
    for (int axis = volume ? 0 : 1; axis < 3; ++axis) {
        // In volumes small ones, for the loops' sake.
        c.window_size[axis] = volume ? random.pick({3, 5, 7}) : 2 * int(random.between(1, 9)) + 1;
        c.shape[2 + axis] = volume ? random.between(1, 9) : random_size(random);
    }
    if (!volume && random.chance(0.1)) c.window_size[1] = c.window_size[2] = 33;
    c.window = random.pick({Shape::gaussian, Shape::gaussian, Shape::uniform, Shape::lopsided});
    c.border = random.pick({Border::zero, Border::reflect, Border::symmetric, Border::replicate});
    c.crop = random.pick({Crop::none, Crop::window, Crop::some});
    if (c.crop == Crop::window)
        for (int axis = 0; axis < 3; ++axis) {
            // Windows of even size have no centre: they exist where nothing is padded.
            if (c.window == Shape::uniform && c.window_size[axis] > 1)
                c.window_size[axis] -= random.chance(0.5);
            c.shape[2 + axis] = std::max<int64_t>(c.shape[2 + axis], c.window_size[axis]);
        }
    c.stride = random.pick({1, 1, 1, 2, 4, 5});
    c.kind = random.chance(0.25) ? Kind::contrast_structure : Kind::ssim;
    c.dtype = random.pick({DType::f32, DType::f32, DType::f64, DType::f64, DType::u8, DType::u16,
                           DType::f16, DType::bf16});
    c.layout = random.pick({Layout::contiguous, Layout::channels_last, Layout::flipped,
                            Layout::strided, Layout::broadcast});
    c.holes = random.pick(
        {Holes::no_mask, Holes::no_mask, Holes::scattered, Holes::block, Holes::everything});
    c.broadcast_mask = random.chance(0.5);
    c.epsilon = random.chance(0.2) ? 1e-8 : 0;
    c.covariance_scale = random.chance(0.3) ? 49.0 / 48.0 : 1;
    c.window_sum = random.chance(0.2) ? 0.9 : 1;
    c.clamp_variance = random.chance(0.2);
    c.clamp_value = random.chance(0.2);
    return c;
}

// ------------------------------------------------------------------------------- boxes and dtypes

void test_downsample_once(Random& random) {
    Downsample call{};
    const bool volume = random.chance(0.3);
    const int factor = int(random.between(2, 3));
    call.shape[0] = random.between(1, 2);
    call.shape[1] = random.between(1, 2);
    call.border =
        random.pick({Border::zero, Border::replicate, Border::symmetric, Border::reflect});
    for (int axis = 0; axis < 3; ++axis) {
        const bool present = volume || axis > 0;
        call.shape[2 + axis] = present ? random_size(random) / (volume ? 3 : 1) + 3 : 1;
        call.padding[axis] = present ? random.between(0, 2) : 0;
        call.padded[axis] =
            call.shape[2 + axis] + call.padding[axis] + (present ? random.between(0, 2) : 0);
        call.factors[axis] = present ? factor : 1;
        call.output_shape[2 + axis] = call.padded[axis] / call.factors[axis];
    }
    std::copy(call.shape, call.shape + 2, call.output_shape);
    Case c;
    c.dtype = random.pick({DType::u8, DType::u16, DType::f16, DType::bf16, DType::f32, DType::f64});
    const Layout layout = random.pick({Layout::contiguous, Layout::channels_last, Layout::flipped,
                                       Layout::strided, Layout::broadcast});
    TestArray full(call.shape, c.dtype, layout);
    for (int64_t i = 0; i < full.size(); ++i) full.set(i, pixel(c, random.uniform()));
    TestArray gradient(call.output_shape, c.compute());
    for (int64_t i = 0; i < gradient.size(); ++i)
        gradient.set(i, double(random.between(-64, 64)) / 64);
    // A mean of at most 27 numbers.
    const double tolerance = (c.is_double() ? 1e-15 : 1e-6) * c.data_range();
    each_isa([&] {
        TestArray reduced(call.output_shape, c.compute());
        Downsample forward = call;
        forward.full = full.array();
        forward.reduced = reduced.array();
        sosie::downsample_forward(forward, 1);
        TestArray back(call.shape, c.compute());
        Downsample backward = call;
        backward.full = back.array();
        backward.reduced = gradient.array();
        sosie::downsample_backward(backward, 1);
        for (int64_t i = 0; i < call.shape[0] * call.shape[1]; ++i) {
            check_close(reduced.plane(i), naive::downsample(call, full.plane(i)), tolerance,
                        "downsample");
            check_close(back.plane(i), naive::downsample_backward(call, gradient.plane(i)),
                        c.is_double() ? 1e-14 : 1e-5, "gradient of downsample");
        }
    });
}

// A box of one pixel copies: every half there is to float, and what float rounds to and back.
void test_half(DType dtype, double (*decode)(uint16_t)) {
    const int64_t shape[5] = {1, 1, 1, 256, 256};
    Downsample call{{1, 1, 1, 256, 256}, {1, 1, 1, 256, 256}, {0, 0, 0}, {1, 256, 256},
                    {1, 1, 1},           Border::zero,        {},        {}};
    TestArray half(shape, dtype), wide(shape, DType::f32), between(shape, DType::f32);
    naive::Values expected, rounded;
    for (int i = 0; i < 65536; ++i) {
        const uint16_t bits = uint16_t(i);
        std::memcpy(const_cast<char*>(half.memory()) + 2 * i, &bits, 2);
        expected.push_back(decode(bits));
        // Halfway to the next larger magnitude, where the even one of the two wins, and beside it.
        const double here = decode(bits), next = decode(uint16_t(bits + 1));
        const double middle = (here + next) / 2;
        const bool usable = std::isfinite(here) && std::isfinite(next) && (here < 0) == (next < 0);
        const int side = i / 3 % 3 - 1;
        const float value = !usable ? float(here)
                            : side == 0
                                ? float(middle)
                                : std::nextafter(float(middle), float(side < 0 ? here : next));
        between.set(i, double(value));
        rounded.push_back(!usable || side < 0 || (side == 0 && i % 2 == 0) ? here : next);
    }
    each_isa([&] {
        Downsample widen = call, narrow = call;
        widen.full = half.array();
        widen.reduced = wide.array();
        sosie::downsample_forward(widen, 1);
        check_equal_plane(wide, expected, std::string(test::name_of(dtype)) + " to float");
        TestArray result(shape, dtype);
        narrow.reduced = between.array();
        narrow.full = result.array();
        sosie::downsample_backward(narrow, 1);
        check_equal_plane(result, rounded, std::string("float to ") + test::name_of(dtype));
    });
}

// ------------------------------------------------------------------------------------------- rest

// However many threads, the same bits.
void test_bits(Random& random) {
    Case c;
    set_image(c, 300, 601, 7);
    c.shape[1] = 2;
    TestArray x(c.shape, DType::f32), y(c.shape, DType::f32);
    for (int64_t i = 0; i < x.size(); ++i) {
        x.set(i, random.uniform());
        y.set(i, random.uniform());
    }
    const naive::Values taps = make_taps(Shape::gaussian, 7, random), one = {1.0};
    SSIMProblem p{};
    std::copy(c.shape, c.shape + 5, p.shape);
    p.x = x.array();
    p.y = y.array();
    p.windows[0] = {one.data(), 1, 0, 0, 0, nullptr, 0, 0};
    p.windows[1] = p.windows[2] = {taps.data(), 7, 3, 0, 0, nullptr, 0, 0};
    p.border = Border::reflect;
    p.stride = 1;
    p.scale = p.covariance_scale = p.window_sum = 1;
    p.center = 0.5;
    p.c1 = 1e-4;
    p.c2 = 9e-4;
    const int64_t numbers_shape[5] = {1, 2, 1, 1, 1};
    TestArray numbers(numbers_shape, DType::f32);
    numbers.set(0, 1);
    numbers.set(1, -2);
    sosie::Array upstream = numbers.array();
    for (int axis = 2; axis < 5; ++axis) upstream.strides[axis] = 0;
    each_isa([&] {
        std::set<std::string> seen;
        for (const int threads : {1, 2, 3, 7, 2}) {
            TestArray map(c.shape, DType::f32), gradient(c.shape, DType::f32);
            double means[2], beside[2], l1[2];
            sosie::ssim_forward({p, map.array()}, means, threads);
            SSIMBackward call{};
            call.problem = p;
            call.upstream = upstream;
            call.grad_x = gradient.array();
            sosie::ssim_backward(call, beside, l1, threads);
            std::string bits(map.memory(), size_t(map.bytes()));
            bits.append(gradient.memory(), size_t(gradient.bytes()));
            for (const double* values : {means, beside, l1})
                bits.append(reinterpret_cast<const char*>(values), 2 * sizeof(double));
            seen.insert(bits);
        }
        check_true(seen.size() == 1, "bits depend on the number of threads");
    });
}

void test_selection() {
    bool refused = false;
    try {
        sosie::select("abacus");
    } catch (const std::invalid_argument& error) {
        refused = std::string(error.what()).find("'abacus'") != std::string::npos;
    }
    check_true(refused, "an unknown instruction set is refused by name");
    each_isa([] {
        check_true(sosie::active().fma_peak(10) > 0, "the peak loop counts its operations");
        const std::vector<float> ones(1024, 1.0f);
        check_true(sosie::active().read_peak(ones.data(), 1024) == 1024,
                   "the reading loop reads all");
    });
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 400;
    Random random(2004);
    test_selection();
    test_half(DType::f16, &test::decode_half);
    test_half(DType::bf16, &test::decode_brain_half);
    for (int i = 0; i < cases / 4; ++i) test_downsample_once(random);
    test_widths(random);
    test_large(random);
    test_bits(random);
    for (int i = 0; i < cases; ++i) run_case(random_case(random), random);
    return test::report();
}
