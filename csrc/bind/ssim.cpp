// SPDX-License-Identifier: Apache-2.0
#include "../cpu/ssim.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "arguments.hpp"

namespace sosie {
namespace {

// The parameters of a similarity, translated once and used for many calls.
class SSIMPlan {
  public:
    SSIMPlan(std::vector<std::vector<double>> taps, int border,
             std::vector<std::pair<int, int>> crop, int stride, double covariance_scale, double c1,
             double c2, double epsilon, bool clamp_variance,
             std::optional<std::pair<double, double>> clamp_value, double data_range, int kind)
        : taps_(std::move(taps)) {
        if (taps_.size() == 2) {
            taps_.insert(taps_.begin(), {1.0});
            crop.insert(crop.begin(), {0, 0});
        }
        problem_.window_sum = 1;
        for (size_t axis = 0; axis < 3; ++axis) {
            problem_.window_sum *= normalise(taps_.at(axis));
            const int size = int(taps_.at(axis).size());
            problem_.windows[axis] = {taps_[axis].data(),
                                      size,
                                      (size - 1) / 2,
                                      crop.at(axis).first,
                                      crop[axis].second,
                                      nullptr,
                                      0,
                                      0};
        }
        problem_.border = Border(border);
        problem_.kind = Kind(kind);
        problem_.stride = stride;
        int exponent = 0;
        std::frexp(data_range, &exponent);
        problem_.scale = std::ldexp(1.0, data_range == 1.0 ? 0 : -exponent);
        problem_.center = data_range / 2;
        problem_.c1 = c1;
        problem_.c2 = c2;
        problem_.epsilon = epsilon;
        problem_.covariance_scale = covariance_scale;
        problem_.clamp_variance = clamp_variance;
        problem_.clamp_value = clamp_value.has_value();
        problem_.lowest = clamp_value ? clamp_value->first : 0;
        problem_.highest = clamp_value ? clamp_value->second : 0;
    }
    SSIMPlan(const SSIMPlan&) = delete;  // windows point into taps_

    void forward(const py::tuple& shape, const py::tuple& x, const py::tuple& y,
                 const py::object& mask, const py::object& map, std::uintptr_t values,
                 int threads) const {
        const SSIMForward call{problem(shape, x, y, mask), array_argument(map)};
        const py::gil_scoped_release released;
        ssim_forward(call, values_argument(values), threads);
    }

    void backward(const py::tuple& shape, const py::tuple& x, const py::tuple& y,
                  const py::object& mask, const py::tuple& upstream, bool upstream_is_map,
                  const py::tuple& grad_x, const py::object& grad_y, std::uintptr_t l1_weights,
                  std::uintptr_t values, std::uintptr_t l1, int threads) const {
        const SSIMBackward call{problem(shape, x, y, mask),
                                array_argument(upstream),
                                upstream_is_map,
                                array_argument(grad_x),
                                array_argument(grad_y),
                                values_argument(l1_weights),
                                nullptr};
        const py::gil_scoped_release released;
        ssim_backward(call, values_argument(values), values_argument(l1), threads);
    }

  private:
    // Divides by the sum, unless that is 1 but for float64 rounding; returns what the sum was.
    static double normalise(std::vector<double>& taps) {
        const double sum = std::accumulate(taps.begin(), taps.end(), 0.0);
        if (std::abs(sum - 1) < 1e-14) return 1;
        for (double& tap : taps) tap /= sum;
        return sum;
    }

    SSIMProblem problem(const py::tuple& shape, const py::tuple& x, const py::tuple& y,
                        const py::object& mask) const {
        SSIMProblem problem = problem_;
        five_axes(shape, 1, problem.shape);
        problem.x = array_argument(x);
        problem.y = array_argument(y);
        problem.mask = array_argument(mask);
        return problem;
    }

    std::vector<std::vector<double>> taps_;
    SSIMProblem problem_{};
};

Downsample downsample_call(const py::tuple& shape, const py::tuple& reduced_shape, int factor,
                           const std::vector<std::pair<int64_t, int64_t>>& padding, int border,
                           const py::tuple& full, const py::tuple& reduced) {
    Downsample call{};
    five_axes(shape, 1, call.shape);
    five_axes(reduced_shape, 1, call.output_shape);
    const size_t first = 3 - padding.size();  // an image has no padding along the depth
    for (size_t axis = 0; axis < 3; ++axis) {
        const bool present = axis >= first;
        call.padding[axis] = present ? padding[axis - first].first : 0;
        call.padded[axis] = call.shape[2 + axis] + call.padding[axis] +
                            (present ? padding[axis - first].second : 0);
        call.factors[axis] = present ? factor : 1;
    }
    call.border = Border(border);
    call.full = array_argument(full);
    call.reduced = array_argument(reduced);
    return call;
}

template <void (*Run)(const Downsample&, int)>
void downsample(const py::tuple& shape, const py::tuple& reduced_shape, int factor,
                const std::vector<std::pair<int64_t, int64_t>>& padding, int border,
                const py::tuple& full, const py::tuple& reduced, int threads) {
    const Downsample call =
        downsample_call(shape, reduced_shape, factor, padding, border, full, reduced);
    const py::gil_scoped_release released;
    Run(call, threads);
}

}  // namespace

void register_ssim(py::module_& m) {
    py::class_<SSIMPlan>(m, "SSIMPlan",
                         "Parameters of a structural similarity, ready for the kernels.")
        .def(py::init<std::vector<std::vector<double>>, int, std::vector<std::pair<int, int>>, int,
                      double, double, double, double, bool,
                      std::optional<std::pair<double, double>>, double, int>(),
             py::arg("taps"), py::arg("border"), py::arg("crop"), py::arg("stride"),
             py::arg("covariance_scale"), py::arg("c1"), py::arg("c2"), py::arg("epsilon"),
             py::arg("clamp_variance"), py::arg("clamp_value"), py::arg("data_range"),
             py::arg("kind"))
        .def("forward", &SSIMPlan::forward, py::arg("shape"), py::arg("x"), py::arg("y"),
             py::arg("mask"), py::arg("map"), py::arg("values"), py::arg("threads"))
        .def("backward", &SSIMPlan::backward, py::arg("shape"), py::arg("x"), py::arg("y"),
             py::arg("mask"), py::arg("upstream"), py::arg("upstream_is_map"), py::arg("grad_x"),
             py::arg("grad_y"), py::arg("l1_weights"), py::arg("values"), py::arg("l1"),
             py::arg("threads"));
    m.def("downsample_forward", &downsample<&downsample_forward>, py::arg("shape"),
          py::arg("reduced_shape"), py::arg("factor"), py::arg("padding"), py::arg("border"),
          py::arg("full"), py::arg("reduced"), py::arg("threads"), "Means over boxes.");
    m.def("downsample_backward", &downsample<&downsample_backward>, py::arg("shape"),
          py::arg("reduced_shape"), py::arg("factor"), py::arg("padding"), py::arg("border"),
          py::arg("full"), py::arg("reduced"), py::arg("threads"), "The adjoint of the means.");
}

}  // namespace sosie
