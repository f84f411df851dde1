// SPDX-License-Identifier: Apache-2.0
//
// The definitions, as loops over pixels and windows in double, one plane at a time. Nothing here is
// clever, and nothing is shared with the kernels but the structs that say what is wanted.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../../csrc/cpu/kernels.hpp"

namespace naive {

using sosie::Border;
using sosie::Downsample;
using sosie::Kind;
using sosie::SSIMProblem;

using Values = std::vector<double>;

// The pixel seen at position i, which may lie outside; -1: a zero is seen.
inline int64_t source(int64_t i, int64_t length, Border border) {
    while (i < 0 || i >= length) {
        if (border == Border::zero) return -1;
        if (border == Border::replicate || length == 1) return i < 0 ? 0 : length - 1;
        const int64_t edge = border == Border::symmetric ? 1 : 0;
        i = i < 0 ? -i - edge : 2 * (length - 1) - i + edge;
    }
    return i;
}

struct Size {
    int64_t d, h, w;
    int64_t count() const { return d * h * w; }
    int64_t at(int64_t z, int64_t y, int64_t x) const { return (z * h + y) * w + x; }
};

inline Size image_size(const SSIMProblem& p) {
    return {p.shape[2], p.shape[3], p.shape[4]};
}

inline int64_t map_length(const SSIMProblem& p, int axis) {
    const sosie::Window& w = p.windows[axis];
    return (p.shape[2 + axis] - w.crop_before - w.crop_after + p.stride - 1) / p.stride;
}
inline Size map_size(const SSIMProblem& p) {
    return {map_length(p, 0), map_length(p, 1), map_length(p, 2)};
}

// use(map index, centre pixel, d, h, w) for every position of the map.
template <class Use>
void each_position(const SSIMProblem& p, Use use) {
    const Size size = image_size(p), map = map_size(p);
    for (int64_t z = 0; z < map.d; ++z)
        for (int64_t y = 0; y < map.h; ++y)
            for (int64_t x = 0; x < map.w; ++x) {
                const int64_t d = p.windows[0].crop_before + z * p.stride;
                const int64_t h = p.windows[1].crop_before + y * p.stride;
                const int64_t w = p.windows[2].crop_before + x * p.stride;
                use(map.at(z, y, x), size.at(d, h, w), d, h, w);
            }
}

// use(pixel, weight) for every valid pixel seen by the window centred at (d, h, w).
template <class Use>
void each_seen(const SSIMProblem& p, const std::vector<bool>& valid, int64_t d, int64_t h,
               int64_t w, Use use) {
    const Size size = image_size(p);
    const sosie::Window *wd = &p.windows[0], *wh = &p.windows[1], *ww = &p.windows[2];
    for (int i = 0; i < wd->size; ++i) {
        const int64_t z = source(d - wd->origin + i, size.d, p.border);
        for (int j = 0; j < wh->size && z >= 0; ++j) {
            const int64_t y = source(h - wh->origin + j, size.h, p.border);
            for (int k = 0; k < ww->size && y >= 0; ++k) {
                const int64_t x = source(w - ww->origin + k, size.w, p.border);
                if (x >= 0 && valid[size_t(size.at(z, y, x))])
                    use(size_t(size.at(z, y, x)), wd->taps[i] * wh->taps[j] * ww->taps[k]);
            }
        }
    }
}

struct Plane {
    Values x, y;
    std::vector<bool> valid;  // all true without a mask
    bool masked;
};

struct Moments {
    double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
    double gain = 0;  // of a pixel's weight in them; 0: no valid pixel, no value
};

inline Moments moments(const SSIMProblem& p, const Plane& plane, int64_t d, int64_t h, int64_t w) {
    Moments m;
    double weight = 0;
    each_seen(p, plane.valid, d, h, w, [&](size_t q, double tap) {
        const double x = plane.x[q], y = plane.y[q];
        m.x += tap * x;
        m.y += tap * y;
        m.xx += tap * x * x;
        m.yy += tap * y * y;
        m.xy += tap * x * y;
        weight += tap;
    });
    m.gain = !plane.masked ? p.window_sum : weight > 0 ? 1 / weight : 0;
    for (double* e : {&m.x, &m.y, &m.xx, &m.yy, &m.xy}) *e *= m.gain;
    return m;
}

// The value at one position and its derivatives by the five means.
struct Similarity {
    double value, by_x, by_y, by_xx, by_yy, by_xy;
};

inline Similarity similarity(const SSIMProblem& p, const Moments& m) {
    const double n = p.covariance_scale;
    const double a1 = 2 * m.x * m.y + p.c1, b1 = m.x * m.x + m.y * m.y + p.c1;
    const double a2 = 2 * n * (m.xy - m.x * m.y) + p.c2;
    const double b2 = n * (m.xx - m.x * m.x + m.yy - m.y * m.y) + p.c2;
    double by_a1 = 0, by_b1 = 0, by_a2, by_b2;
    Similarity s{};
    if (p.kind == Kind::ssim) {
        const double q = b1 * b2 + p.epsilon;
        s.value = a1 * a2 / q;
        by_a1 = a2 / q;
        by_a2 = a1 / q;
        by_b1 = -s.value * b2 / q;
        by_b2 = -s.value * b1 / q;
    } else {
        s.value = a2 / b2;
        by_a2 = 1 / b2;
        by_b2 = -s.value / b2;
    }
    if (p.clamp_value && (s.value < p.lowest || s.value > p.highest)) {
        s.value = std::min(std::max(s.value, p.lowest), p.highest);
        return s;
    }
    s.by_xy = 2 * n * by_a2;
    s.by_xx = s.by_yy = n * by_b2;
    s.by_x = 2 * (by_a1 * m.y + by_b1 * m.x - s.by_xx * m.x) - s.by_xy * m.y;
    s.by_y = 2 * (by_a1 * m.x + by_b1 * m.y - s.by_yy * m.y) - s.by_xy * m.x;
    return s;
}

struct Forward {
    Values map;
    double mean;  // over positions whose centre is valid; NaN where there is none
};

inline Forward forward(const SSIMProblem& p, const Plane& plane) {
    Forward result{Values(size_t(map_size(p).count()), 0.0), 0.0};
    double count = 0;
    each_position(p, [&](int64_t i, int64_t centre, int64_t d, int64_t h, int64_t w) {
        const Moments m = moments(p, plane, d, h, w);
        if (m.gain == 0) return;
        result.map[size_t(i)] = similarity(p, m).value;
        if (!plane.valid[size_t(centre)]) return;
        result.mean += result.map[size_t(i)];
        count += 1;
    });
    result.mean = count > 0 ? result.mean / count : std::numeric_limits<double>::quiet_NaN();
    return result;
}

struct Gradients {
    Values x, y;
};

// upstream: dLoss/dmap of the map's size, or one number for every position with a valid centre.
inline Gradients backward(const SSIMProblem& p, const Plane& plane, const Values& upstream,
                          bool is_map) {
    Gradients g{Values(plane.x.size(), 0.0), Values(plane.x.size(), 0.0)};
    each_position(p, [&](int64_t i, int64_t centre, int64_t d, int64_t h, int64_t w) {
        const Moments m = moments(p, plane, d, h, w);
        if (m.gain == 0 || (!is_map && !plane.valid[size_t(centre)])) return;
        const Similarity s = similarity(p, m);
        const double each = upstream[is_map ? size_t(i) : 0] * m.gain;
        each_seen(p, plane.valid, d, h, w, [&](size_t q, double tap) {
            const double x = plane.x[q], y = plane.y[q];
            g.x[q] += each * tap * (s.by_x + 2 * x * s.by_xx + y * s.by_xy);
            g.y[q] += each * tap * (s.by_y + 2 * y * s.by_yy + x * s.by_xy);
        });
    });
    return g;
}

// use(box, pixel) for every box and every pixel seen in it.
template <class Use>
void each_boxed(const Downsample& call, Use use) {
    const Size full{call.shape[2], call.shape[3], call.shape[4]};
    const Size boxes{call.output_shape[2], call.output_shape[3], call.output_shape[4]};
    const auto seen = [&](int axis, int64_t place) {
        return source(place - call.padding[axis], call.shape[2 + axis], call.border);
    };
    for (int64_t d = 0; d < boxes.d * call.factors[0]; ++d)
        for (int64_t h = 0; h < boxes.h * call.factors[1]; ++h)
            for (int64_t w = 0; w < boxes.w * call.factors[2]; ++w) {
                const int64_t z = seen(0, d), y = seen(1, h), x = seen(2, w);
                if (z < 0 || y < 0 || x < 0) continue;
                use(size_t(boxes.at(d / call.factors[0], h / call.factors[1], w / call.factors[2])),
                    size_t(full.at(z, y, x)));
            }
}

inline double box_size(const Downsample& call) {
    return double(call.factors[0]) * call.factors[1] * call.factors[2];
}

inline Values downsample(const Downsample& call, const Values& full) {
    Values reduced(size_t(call.output_shape[2] * call.output_shape[3] * call.output_shape[4]), 0.0);
    each_boxed(call,
               [&](size_t box, size_t pixel) { reduced[box] += full[pixel] / box_size(call); });
    return reduced;
}

inline Values downsample_backward(const Downsample& call, const Values& reduced) {
    Values full(size_t(call.shape[2] * call.shape[3] * call.shape[4]), 0.0);
    each_boxed(call,
               [&](size_t box, size_t pixel) { full[pixel] += reduced[box] / box_size(call); });
    return full;
}

}  // namespace naive
