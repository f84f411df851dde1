// SPDX-License-Identifier: Apache-2.0
//
// Structural similarity of volumes: the slices of ssim-inl.hpp, and a third filter across them.
//
// A task walks a tile of rows and columns through the slices. What SliceWalk makes of a slice goes
// into a stack of kSlices and the window's reach before them, filtered across by the same code that
// filters rows. The gradient takes two passes: the coefficients of the whole map are written to a
// workspace of three (two gradients: four) volumes, then gathered by the adjoint filters; a tile
// that streamed both stages at once would recompute most of its volume.
#pragma once
#include "ssim-backward-inl.hpp"

namespace {

constexpr int kSlices = 8;             // slices filtered across at once, at most kBlock
constexpr int kVolumeRowBytes = 1024;  // of one segmented row of one plane
constexpr int kVolumeRows = 32;        // rows of a tile
constexpr int kVolumeDepth = 64;       // slices of a task
static_assert(kSlices <= kBlock, "a panel holds kBlock rows");

// Positions of the same-size map, or pixels, that a task is responsible for.
struct Region {
    int64_t n, c;
    int64_t begin[3], end[3];  // depth, height, width
};

template <class T>
class VolumeTiling {
  public:
    // Cuts positions [low, high) of each axis.
    VolumeTiling(const SSIMProblem& p, const int64_t* low, const int64_t* high)
        : channels_(p.shape[1]), planes_(p.shape[0] * p.shape[1]) {
        const int64_t largest[3] = {kVolumeDepth, kVolumeRows,
                                    kVolumeRowBytes / int64_t(sizeof(T))};
        for (int axis = 0; axis < 3; ++axis) {
            low_[axis] = low[axis];
            high_[axis] = high[axis];
            const int64_t count = high[axis] - low[axis];
            const int64_t pieces = larger(divide_up(count, largest[axis]), 1);
            piece_[axis] = divide_up(count, pieces);
        }
        length = divide_up(piece_[2], kLanes<T>);
        piece_[2] = length * kLanes<T>;
        for (int axis = 0; axis < 3; ++axis)
            pieces_[axis] = divide_up(high[axis] - low[axis], piece_[axis]);
    }
    int64_t tasks() const { return planes_ * pieces_[0] * pieces_[1] * pieces_[2]; }
    Region region(int64_t task) const {
        Region r;
        for (int axis = 2; axis >= 0; --axis) {
            r.begin[axis] = low_[axis] + task % pieces_[axis] * piece_[axis];
            r.end[axis] = smaller(r.begin[axis] + piece_[axis], high_[axis]);
            task /= pieces_[axis];
        }
        r.n = task / channels_;
        r.c = task % channels_;
        return r;
    }
    int64_t length;  // vectors per segmented row

  private:
    int64_t channels_, planes_, low_[3], high_[3], piece_[3], pieces_[3];
};

template <class T>
VolumeTiling<T> map_tiling(const SSIMProblem& p) {
    int64_t low[3], high[3];
    for (int axis = 0; axis < 3; ++axis) {
        low[axis] = p.windows[axis].crop_before;
        high[axis] = p.shape[2 + axis] - p.windows[axis].crop_after;
    }
    return VolumeTiling<T>(p, low, high);
}

template <class T>
VolumeTiling<T> image_tiling(const SSIMProblem& p) {
    const int64_t low[3] = {0, 0, 0};
    return VolumeTiling<T>(p, low, p.shape + 2);
}

// Tiles of consecutive slices: `history` slices stay from block to block.
template <class T>
class SliceStack {
  public:
    SliceStack(int planes, int64_t length, int history, Arena& arena)
        : planes_(planes), history_(history), pitch_(row_pitch<T>(length + 1)) {
        plane_ = slice() * (history + kSlices + 1);  // one slice more: filters work in pairs
        data_ = arena.take<Vec<T>>(plane_ * planes);
    }
    Vec<T>* row(int plane, int64_t slot, int64_t r) const {
        return data_ + plane * plane_ + slot * slice() + r * pitch_;
    }
    ptrdiff_t slice() const { return pitch_ * kVolumeRows; }
    void advance() {
        for (int plane = 0; plane < planes_; ++plane)
            __builtin_memmove(row(plane, 0, 0), row(plane, kSlices, 0),
                              size_t(history_ * slice()) * sizeof(Vec<T>));
    }

  private:
    int planes_, history_;
    int64_t pitch_, plane_;
    Vec<T>* data_;
};

// The first stage over a region: calls on_panel(d, depths, row, j) with panel() holding planes of
// vectors j .. j + kPanel of a row, slice by slice, then on_row(d, depths, row).
template <class T, bool Masked>
class VolumeWalk {
  public:
    using Slice = SliceWalk<T, Masked>;

    VolumeWalk(const SSIMProblem& p, int64_t length, Arena& arena)
        : p_(p),
          length_(length),
          depth_(p.windows[0], arena),
          slice_(p, length, arena),
          stack_(Slice::kFiltered + Masked, length, depth_.size - 1, arena),
          panel_(arena.take<Vec<T>>(Slice::kFiltered * Slice::kPanelPlane)) {}

    void prepare() {
        depth_.fill(p_.windows[0]);
        slice_.prepare();
    }
    const Vec<T>* panel() const { return panel_; }
    const Vec<T>* centre_mask(int64_t row, int64_t j) const {
        return stack_.row(Slice::kFiltered, depth_.origin, row) + j;
    }
    ptrdiff_t mask_pitch() const { return stack_.slice(); }

    template <class OnPanel, class OnRow>
    void run(const Constants<T>& k, const Region& r, OnPanel on_panel, OnRow on_row) {
        int64_t next_slice = r.begin[0] - depth_.origin;
        for (int64_t d = r.begin[0]; d < r.end[0]; d += kSlices) {
            const int depths = int(smaller(kSlices, r.end[0] - d));
            const int64_t top = d - depth_.origin;
            for (; next_slice < top + depths + depth_.size - 1; ++next_slice)
                read_slice(k, r, next_slice, next_slice - top);
            for (int64_t row = 0; row < r.end[1] - r.begin[1]; ++row) {
                for (int64_t j = 0; j < length_; j += kPanel) {
                    for (int plane = 0; plane < Slice::kFiltered; ++plane)
                        depth_.across(stack_.row(plane, 0, row) + j, stack_.slice(),
                                      panel_ + plane * Slice::kPanelPlane, kPanel, depths,
                                      depth_.taps, depth_.size);
                    on_panel(d, depths, row, j);
                }
                on_row(d, depths, row);
            }
            stack_.advance();
        }
    }

  private:
    void read_slice(const Constants<T>& k, const Region& r, int64_t d, int64_t slot) {
        const auto keep_panel = [&](int64_t row, int rows, int64_t j) {
            for (int i = 0; i < rows; ++i) {
                const int64_t tile_row = row + i - r.begin[1];
                for (int plane = 0; plane < Slice::kFiltered; ++plane)
                    __builtin_memcpy(stack_.row(plane, slot, tile_row) + j,
                                     slice_.panel() + plane * Slice::kPanelPlane + i * kPanel,
                                     kPanel * sizeof(Vec<T>));
                if constexpr (Masked)
                    __builtin_memcpy(stack_.row(Slice::kFiltered, slot, tile_row) + j,
                                     slice_.centre_mask(j) + i * slice_.mask_pitch(),
                                     kPanel * sizeof(Vec<T>));
            }
        };
        slice_.run(k, r.n, r.c, d, r.begin[1], r.end[1], r.begin[2], r.end[2], keep_panel,
                   [](int64_t, int) {});
    }

    const SSIMProblem& p_;
    int64_t length_;
    Axis<T> depth_;
    Slice slice_;
    SliceStack<T> stack_;
    Vec<T>* panel_;
};

template <class T, bool Masked, int Planes>
struct VolumeWorkspace {
    Arena arena;
    int64_t value_pitch;
    VolumeWalk<T, Masked> walk;
    Vec<T>*values, *upstream, *flat;  // values: (Planes, kSlices, value_pitch)
    T* upstream_row;
    Mask<T>* counted;

    VolumeWorkspace(const SSIMProblem& p, int64_t length, void* scratch)
        : arena(scratch),
          value_pitch(round_up(length + kPanel, kLanes<T>)),
          walk(p, length, arena) {
        values = arena.take<Vec<T>>(Planes * kSlices * value_pitch);
        upstream = arena.take<Vec<T>>(kSlices * value_pitch);
        flat = arena.take<Vec<T>>(length + 1);
        upstream_row = arena.take<T>(linear_length<T>(length, length));
        counted = arena.take<Mask<T>>(length);
    }
};

// ---------------------------------------------------------------------------------------- forward

template <class T, Kind K, bool Masked>
void volume_forward_task(const SSIMForward& call, int64_t task, void* scratch,
                         SSIMPartial* partial) {
    const SSIMProblem& p = call.problem;
    const VolumeTiling<T> tiling = map_tiling<T>(p);
    const Region region = tiling.region(task);
    const int64_t length = tiling.length;
    const Constants<T> k(p);
    VolumeWorkspace<T, Masked, 1> w(p, length, scratch);
    w.walk.prepare();
    const auto low = [&](int axis) { return int64_t(p.windows[axis].crop_before); };
    mark_columns<T>(region.begin[2], length, length, region.begin[2], region.end[2], low(2),
                    p.stride, w.counted);
    const bool want_map = call.map.data != nullptr;
    const auto skipped = [&](int64_t row) {
        return (region.begin[1] + row - low(1)) % p.stride != 0;
    };
    *partial = SSIMPartial{};
    w.walk.run(
        k, region,
        [&](int64_t d, int depths, int64_t row, int64_t j) {
            if (skipped(row)) return;
            evaluate_panel<T, K, Masked>(
                k, w.walk.panel(), w.walk.centre_mask(row, j), w.walk.mask_pitch(), w.counted + j,
                int(to_stride(d, low(0), p.stride)), depths, p.stride,
                int(smaller(kPanel, length - j)), want_map ? w.values + j : nullptr, w.value_pitch,
                *partial);
        },
        [&](int64_t d, int depths, int64_t row) {
            if (!want_map || skipped(row)) return;
            for (int i = int(to_stride(d, low(0), p.stride)); i < depths; i += p.stride)
                store_map_row<T>(call.map, p, region.n, region.c, (d + i - low(0)) / p.stride,
                                 (region.begin[1] + row - low(1)) / p.stride, region.begin[2],
                                 region.end[2], w.values + i * w.value_pitch, length, w.flat);
        });
    if constexpr (!Masked) {
        partial->count = 1;
        for (int axis = 0; axis < 3; ++axis)
            partial->count *=
                double(on_stride(region.begin[axis], region.end[axis], low(axis), p.stride));
    }
}

template <class T>
int64_t volume_forward_tasks(const SSIMForward& call) {
    return map_tiling<T>(call.problem).tasks();
}

template <class T>
size_t volume_forward_scratch(const SSIMForward& call) {
    const int64_t length = map_tiling<T>(call.problem).length;
    return VolumeWorkspace<T, true, 1>(call.problem, length, nullptr).arena.used();
}

template <class T>
void run_volume_forward(const SSIMForward& call, int64_t task, void* scratch,
                        SSIMPartial* partial) {
    const bool masked = call.problem.mask.data;
    if (call.problem.kind == Kind::ssim)
        (masked ? volume_forward_task<T, Kind::ssim, true>
                : volume_forward_task<T, Kind::ssim, false>)(call, task, scratch, partial);
    else
        (masked ? volume_forward_task<T, Kind::contrast_structure, true>
                : volume_forward_task<T, Kind::contrast_structure, false>)(call, task, scratch,
                                                                           partial);
}

// ------------------------------------------------------------------------- backward: coefficients

// Plane `plane` of the workspace: every position of the cropped map, (batch, channels, *sizes).
template <class T>
Array coefficient_plane(const SSIMBackward& call, int plane, int64_t* shape) {
    const SSIMProblem& p = call.problem;
    for (int axis = 0; axis < 5; ++axis) {
        shape[axis] = p.shape[axis];
        if (axis >= 2)
            shape[axis] -= p.windows[axis - 2].crop_before + p.windows[axis - 2].crop_after;
    }
    Array array{};
    array.dtype = sizeof(T) == 4 ? DType::f32 : DType::f64;
    int64_t stride = 1;
    for (int axis = 4; axis >= 0; --axis) {
        array.strides[axis] = stride;
        stride *= shape[axis];
    }
    array.data = static_cast<T*>(call.coefficients) + plane * stride;
    return array;
}

template <class T, Kind K, bool Masked, bool Both>
void volume_coefficients_task(const SSIMBackward& call, int64_t task, void* scratch,
                              SSIMPartial* partial) {
    constexpr int planes = Coefficients<Both>::kPlanes;
    const SSIMProblem& p = call.problem;
    const VolumeTiling<T> tiling = map_tiling<T>(p);
    const Region region = tiling.region(task);
    const int64_t length = tiling.length;
    const Constants<T> k(p);
    VolumeWorkspace<T, Masked, planes> w(p, length, scratch);
    w.walk.prepare();
    const auto low = [&](int axis) { return int64_t(p.windows[axis].crop_before); };
    mark_columns<T>(region.begin[2], length, length, region.begin[2], region.end[2], low(2),
                    p.stride, w.counted);
    const Array& u = call.upstream;
    const auto* upstream = static_cast<const T*>(u.data) + offset_of(u, region.n, region.c, 0, 0);
    const auto on_map = [&](int64_t d, int64_t row) {
        return (d - low(0)) % p.stride == 0 && (region.begin[1] + row - low(1)) % p.stride == 0;
    };
    const auto read_upstream = [&](int64_t d, int64_t row, Vec<T>* out) {
        const int64_t offset = (d - low(0)) / p.stride * u.strides[2] +
                               (region.begin[1] + row - low(1)) / p.stride * u.strides[3];
        for (int64_t i = 0; i < linear_length<T>(length, length); ++i) {
            const int64_t column = region.begin[2] + i - low(2);
            const bool counts = region.begin[2] + i < region.end[2] && column % p.stride == 0;
            w.upstream_row[i] = counts ? upstream[offset + column / p.stride * u.strides[4]] : T(0);
        }
        segment_row<T>(w.upstream_row, length, length, out);
    };
    Vec<T> total{}, count{};
    *partial = SSIMPartial{};
    w.walk.run(
        k, region,
        [&](int64_t d, int depths, int64_t row, int64_t j) {
            for (int i = 0; i < depths; ++i) {
                Vec<T>* out = w.values + i * w.value_pitch + j;
                if (!on_map(d + i, row)) {
                    for (int plane = 0; plane < planes; ++plane)
                        __builtin_memset(out + plane * kSlices * w.value_pitch, 0,
                                         kPanel * sizeof(Vec<T>));
                    continue;
                }
                if (call.upstream_is_map && j == 0)
                    read_upstream(d + i, row, w.upstream + i * w.value_pitch);
                for (int c = 0; c < smaller(kPanel, length - j); ++c) {
                    Mask<T> counted = w.counted[j + c], centre = ~Mask<T>{};
                    if constexpr (Masked)
                        centre = w.walk.centre_mask(row, j)[i * w.walk.mask_pitch() + c] > Vec<T>{};
                    const Vec<T> g = call.upstream_is_map ? w.upstream[i * w.value_pitch + j + c]
                                                          : splat<T>(*upstream);
                    const Vec<T> value = evaluate_with_gradient<T, K, Masked, Both>(
                        w.walk.panel() + i * kPanel + c, k, g, call.upstream_is_map, centre,
                        counted, counted, out + c, kSlices * w.value_pitch);
                    total += keep<T>(value, counted);
                    count += keep<T>(splat<T>(1), counted);
                }
            }
        },
        [&](int64_t d, int depths, int64_t row) {
            T* flat = reinterpret_cast<T*>(w.flat);
            for (int plane = 0; plane < planes; ++plane)
                for (int i = 0; i < depths; ++i) {
                    int64_t shape[5];
                    const Array target = coefficient_plane<T>(call, plane, shape);
                    unsegment<T>(w.values + (plane * kSlices + i) * w.value_pitch, length, flat);
                    store_row<T>(target, region.n, region.c, d + i - low(0),
                                 region.begin[1] + row - low(1), region.begin[2] - low(2),
                                 region.end[2] - region.begin[2], 1, flat);
                }
            partial->value += sum_lanes<T>(total);
            partial->count += sum_lanes<T>(count);
            total = count = Vec<T>{};
        });
}

template <class T>
int64_t volume_coefficients_tasks(const SSIMBackward& call) {
    return map_tiling<T>(call.problem).tasks();
}

template <class T>
size_t volume_coefficients_scratch(const SSIMBackward& call) {
    const int64_t length = map_tiling<T>(call.problem).length;
    return VolumeWorkspace<T, true, 4>(call.problem, length, nullptr).arena.used();
}

template <class T, Kind K>
void run_volume_coefficients_kind(const SSIMBackward& call, int64_t task, void* scratch,
                                  SSIMPartial* out) {
    const bool masked = call.problem.mask.data, both = call.grad_y.data;
    if (masked && both) return volume_coefficients_task<T, K, true, true>(call, task, scratch, out);
    if (masked) return volume_coefficients_task<T, K, true, false>(call, task, scratch, out);
    if (both) return volume_coefficients_task<T, K, false, true>(call, task, scratch, out);
    return volume_coefficients_task<T, K, false, false>(call, task, scratch, out);
}

template <class T>
void run_volume_coefficients(const SSIMBackward& call, int64_t task, void* scratch,
                             SSIMPartial* partial) {
    (call.problem.kind == Kind::ssim
         ? run_volume_coefficients_kind<T, Kind::ssim>
         : run_volume_coefficients_kind<T, Kind::contrast_structure>)(call, task, scratch, partial);
}

// ----------------------------------------------------------------------------- backward: gradient

// Adjoint filters over a tile of coefficients, slice by slice, then the gradient row by row.
template <class T, bool Masked, bool Both>
class VolumeGradientTask {
  public:
    static constexpr int kPlanes = Coefficients<Both>::kPlanes;
    static constexpr ptrdiff_t kPanelPlane = (kBlock + 1) * kPanel;

    VolumeGradientTask(const SSIMBackward& call, const VolumeTiling<T>& tiling, void* scratch)
        : call_(call),
          p_(call.problem),
          length_(tiling.length),
          map_vectors_(length_ + p_.windows[2].size - 1),
          map_pitch_(round_up(map_vectors_ + 1, kLanes<T>)),
          value_pitch_(round_up(length_ + kPanel, kLanes<T>)),
          arena_(scratch),
          depth_(p_.windows[0], arena_),
          height_(p_.windows[1], arena_),
          width_(p_.windows[2], arena_),
          reader_(p_, length_, length_, arena_),
          window_(kPlanes, length_, height_.size - 1, arena_),
          stack_(kPlanes, length_, depth_.size - 1, arena_) {
        panel_ = arena_.template take<Vec<T>>(kPlanes * kPanelPlane);
        segments_ = arena_.template take<Vec<T>>(map_pitch_);
        images_ = arena_.template take<Vec<T>>(kSlices * 5 * value_pitch_);
        grad_ = arena_.template take<Vec<T>>(2 * kSlices * value_pitch_);
        flat_ = arena_.template take<Vec<T>>(length_ + 1);
        row_ = arena_.template take<T>(linear_length<T>(length_, map_vectors_));
        folded_ = arena_.template take<T>(larger(height_.size, depth_.size));
        pixels_ = arena_.template take<Mask<T>>(length_);
    }
    size_t scratch_used() const { return arena_.used(); }

    void run(const Region& r, SSIMPartial& partial) {
        const Constants<T> k(p_);
        depth_.fill(p_.windows[0]);
        height_.fill(p_.windows[1]);
        width_.fill(p_.windows[2]);
        mark_columns<T>(r.begin[2], length_, length_, r.begin[2], r.end[2], 0, 1, pixels_);
        partial = SSIMPartial{};
        const int64_t reach = depth_.size - 1 - depth_.origin;
        int64_t next_slice = r.begin[0] - reach;
        for (int64_t d = r.begin[0]; d < r.end[0]; d += kSlices) {
            const int depths = int(smaller(kSlices, r.end[0] - d));
            const int64_t top = d - reach;
            for (; next_slice < top + depths + depth_.size - 1; ++next_slice)
                gather_slice(r, next_slice, next_slice - top);
            for (int64_t row = 0; row < r.end[1] - r.begin[1]; ++row)
                make_gradient(k, r, d, depths, row, partial);
            stack_.advance();
        }
    }

  private:
    void read_coefficients(int plane, const Region& r, int64_t d, int64_t h) {
        int64_t shape[5];
        const Array a = coefficient_plane<T>(call_, plane, shape);
        const Window& w = p_.windows[2];
        const int64_t first = r.begin[2] - (w.size - 1 - w.origin) - w.crop_before;
        const int64_t total = linear_length<T>(length_, map_vectors_);
        const T* row =
            load_row<T>(a, shape, Border::zero, r.n, r.c, d - p_.windows[0].crop_before,
                        h - p_.windows[1].crop_before, first, first + total, total, row_);
        segment_row<T>(row, length_, map_vectors_, segments_);
    }

    void gather_slice(const Region& r, int64_t d, int64_t slot) {
        const int64_t reach = height_.size - 1 - height_.origin;
        int64_t next_row = r.begin[1] - reach;
        for (int64_t row = r.begin[1]; row < r.end[1]; row += kBlock) {
            const int rows = int(smaller(kBlock, r.end[1] - row));
            const int64_t top = row - reach;
            for (; next_row < top + rows + height_.size - 1; ++next_row)
                for (int plane = 0; plane < kPlanes; ++plane) {
                    read_coefficients(plane, r, d, next_row);
                    adjoint_along<T>(width_, p_.windows[2], segments_,
                                     window_.row(plane, next_row - top), length_, r.begin[2],
                                     p_.shape[4]);
                }
            for (int64_t j = 0; j < length_; j += kPanel)
                for (int plane = 0; plane < kPlanes; ++plane) {
                    adjoint_across<T>(height_, p_.windows[1], window_.row(plane, 0) + j,
                                      window_.pitch(), panel_, 0, rows, row, p_.shape[3], folded_);
                    for (int i = 0; i < rows; ++i)
                        __builtin_memcpy(stack_.row(plane, slot, row + i - r.begin[1]) + j,
                                         panel_ + i * kPanel, kPanel * sizeof(Vec<T>));
                }
            window_.advance();
        }
    }

    void make_gradient(const Constants<T>& k, const Region& r, int64_t d, int depths, int64_t row,
                       SSIMPartial& partial) {
        const int64_t h = r.begin[1] + row;
        const T l1_weight = call_.l1_weights ? T(call_.l1_weights[r.n * p_.shape[1] + r.c]) : T(0);
        for (int i = 0; i < depths; ++i)
            reader_.read(k, r.n, r.c, d + i, h, r.begin[2], r.end[2],
                         images_ + i * 5 * value_pitch_, value_pitch_);
        Vec<T> l1{};
        for (int64_t j = 0; j < length_; j += kPanel) {
            for (int plane = 0; plane < kPlanes; ++plane)
                adjoint_across<T>(depth_, p_.windows[0], stack_.row(plane, 0, row) + j,
                                  stack_.slice(), panel_ + plane * kPanelPlane, 0, depths, d,
                                  p_.shape[2], folded_);
            for (int i = 0; i < depths; ++i)
                for (int c = 0; c < smaller(kPanel, length_ - j); ++c) {
                    const Vec<T>* image = images_ + i * 5 * value_pitch_ + j + c;
                    const Vec<T> difference = image[kDifference * value_pitch_];
                    Mask<T> valid = pixels_[j + c];
                    if constexpr (Masked) valid &= image[kWeight * value_pitch_] > Vec<T>{};
                    l1 += keep<T>(absolute<T>(difference), valid);
                    if constexpr (Masked) partial.pixels += count_lanes<T>(valid);
                    Vec<T> x, y;
                    combine<T, Both>(panel_ + i * kPanel + c, image[kSum * value_pitch_],
                                     difference, l1_weight, x, y);
                    grad_[i * value_pitch_ + j + c] = Masked ? keep<T>(x, valid) : x;
                    grad_[(kSlices + i) * value_pitch_ + j + c] = Masked ? keep<T>(y, valid) : y;
                }
        }
        partial.l1 += sum_lanes<T>(l1) / p_.scale;
        if constexpr (!Masked) partial.pixels += double(depths) * double(r.end[2] - r.begin[2]);
        for (int i = 0; i < depths; ++i) {
            write(call_.grad_x, r, d + i, h, grad_ + i * value_pitch_);
            if constexpr (Both)
                write(call_.grad_y, r, d + i, h, grad_ + (kSlices + i) * value_pitch_);
        }
    }

    void write(const Array& target, const Region& r, int64_t d, int64_t h, const Vec<T>* values) {
        T* flat = reinterpret_cast<T*>(flat_);
        unsegment<T>(values, length_, flat);
        store_row<T>(target, r.n, r.c, d, h, r.begin[2], r.end[2] - r.begin[2], 1, flat);
    }

    const SSIMBackward& call_;
    const SSIMProblem& p_;
    int64_t length_, map_vectors_, map_pitch_, value_pitch_;
    Arena arena_;
    Axis<T> depth_, height_, width_;
    RowReader<T, Masked> reader_;
    RowWindow<T> window_;
    SliceStack<T> stack_;
    Vec<T>*panel_, *segments_, *images_, *grad_, *flat_;
    T *row_, *folded_;
    Mask<T>* pixels_;
};

template <class T>
int64_t volume_gradient_tasks(const SSIMBackward& call) {
    return image_tiling<T>(call.problem).tasks();
}

template <class T>
size_t volume_gradient_scratch(const SSIMBackward& call) {
    return VolumeGradientTask<T, true, true>(call, image_tiling<T>(call.problem), nullptr)
        .scratch_used();
}

template <class T>
void run_volume_gradient(const SSIMBackward& call, int64_t task, void* scratch,
                         SSIMPartial* partial) {
    const bool masked = call.problem.mask.data, both = call.grad_y.data;
    const VolumeTiling<T> tiling = image_tiling<T>(call.problem);
    const Region r = tiling.region(task);
    if (masked && both)
        return VolumeGradientTask<T, true, true>(call, tiling, scratch).run(r, *partial);
    if (masked) return VolumeGradientTask<T, true, false>(call, tiling, scratch).run(r, *partial);
    if (both) return VolumeGradientTask<T, false, true>(call, tiling, scratch).run(r, *partial);
    return VolumeGradientTask<T, false, false>(call, tiling, scratch).run(r, *partial);
}

}  // namespace
