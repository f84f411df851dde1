// SPDX-License-Identifier: Apache-2.0
//
// Sliding sum of weighted squared differences of an image and a template, term by term.
//
// Differences are taken before anything is squared, so an exact match is exactly 0, and a good one
// keeps its digits; the expanded form (squares minus twice a correlation) would lose both. A term
// of a vector of positions costs a load and two operations, three under weights; kVectors vectors
// of neighbouring positions share what is loaded of the template. A weight of 0 skips its term, so
// that a pixel under it may hold anything.
//
// Accuracy: positions add up at most kTerms terms in the computing type before they are widened to
// double. Sums of 8-bit differences without weights are exact: 256 * 255^2 < 2^24.
#pragma once
#include "arena-inl.hpp"
#include "rows-inl.hpp"
#include "template-call.hpp"

namespace {

using sosie::TemplatePartial;
using sosie::TemplateSearch;

constexpr int kVectors = 4;  // neighbouring vectors of positions worked on together
constexpr int64_t kTerms = 256;
constexpr int64_t kMapRows = 16;  // of the map, that one task makes

inline int64_t map_rows(const TemplateSearch& call) {
    return call.shape[3] - call.height + 1;
}
inline int64_t map_columns(const TemplateSearch& call) {
    return call.shape[4] - call.width + 1;
}

template <class T>
constexpr int64_t kPositions = kVectors * kLanes<T>;

// Columns of the image that whole blocks of positions reach.
template <class T>
inline int64_t padded_columns(const TemplateSearch& call) {
    return round_up(map_columns(call), kPositions<T>) + call.width - 1;
}

inline int64_t rows_in_reach(const TemplateSearch& call) {
    return smaller(kMapRows, map_rows(call)) + call.height - 1;
}

template <class T>
struct SearchMemory {
    const T** rows;  // (channels, rows in reach)
    T* copies;       // of those that cannot be read in place
    double* sums;    // one row of the map
    SearchMemory(const TemplateSearch& call, Arena& arena)
        : rows(arena.take<const T*>(call.shape[1] * rows_in_reach(call))),
          copies(arena.take<T>(call.shape[1] * rows_in_reach(call) * padded_columns<T>(call))),
          sums(arena.take<double>(round_up(map_columns(call), kPositions<T>))) {}
};

template <class T>
int64_t template_tasks(const TemplateSearch& call) {
    return call.shape[0] * divide_up(map_rows(call), kMapRows);
}

template <class T>
size_t template_scratch(const TemplateSearch& call) {
    Arena arena(nullptr);
    SearchMemory<T>(call, arena);
    return arena.used();
}

// Adds the terms of `count` columns of one row of the template, at kPositions positions.
template <class T, bool Weighted>
inline void add_terms(const T* image, const T* values, const T* weights, int64_t count,
                      Vec<T>* sums) {
    for (int64_t s = 0; s < count; ++s) {
        if (Weighted && weights[s] == 0) continue;
        const Vec<T> value = splat<T>(values[s]), weight = splat<T>(Weighted ? weights[s] : T(1));
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            const Vec<T> d = load<T>(image + s + v * kLanes<T>) - value;
            sums[v] += (Weighted ? weight * d : d) * d;
        }
    }
}

// One row of the map; `rows` are the image's from there on, `next_channel` apart.
template <class T, bool Weighted>
void search_row(const TemplateSearch& call, const T* const* rows, int64_t next_channel,
                double* out) {
    const int64_t channels = call.shape[1], height = call.height, width = call.width;
    const T* const values = static_cast<const T*>(call.values);
    const T* const weights = static_cast<const T*>(call.weights);
    for (int64_t j = 0; j < map_columns(call); j += kPositions<T>) {
        Wide<T> totals[kVectors] = {};
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t r = 0; r < height; ++r)
                for (int64_t s = 0; s < width; s += kTerms) {
                    const int64_t at = (c * height + r) * width + s;
                    Vec<T> sums[kVectors] = {};
                    add_terms<T, Weighted>(rows[c * next_channel + r] + j + s, values + at,
                                           Weighted ? weights + at : nullptr,
                                           smaller(kTerms, width - s), sums);
                    for (int v = 0; v < kVectors; ++v) totals[v] += widen_lanes<T>(sums[v]);
                }
        for (int v = 0; v < kVectors; ++v)
            __builtin_memcpy(out + j + v * kLanes<T>, &totals[v], sizeof totals[v]);
    }
}

inline void store_sums(const TemplateSearch& call, int64_t n, int64_t row, const double* sums) {
    const int64_t columns = map_columns(call);
    if (call.map.dtype == DType::f64) {
        store_row<double>(call.map, n, 0, 0, row, 0, columns, 1, sums);
        return;
    }
    float* to = static_cast<float*>(call.map.data) + offset_of(call.map, n, 0, 0, row);
    for (int64_t j = 0; j < columns; ++j) to[j * call.map.strides[4]] = float(sums[j]);
}

template <class T>
void run_template(const TemplateSearch& call, int64_t task, void* scratch, TemplatePartial*) {
    Arena arena(scratch);
    const SearchMemory<T> memory(call, arena);
    const int64_t strips = divide_up(map_rows(call), kMapRows);
    const int64_t n = task / strips, first = task % strips * kMapRows;
    const int64_t rows = smaller(kMapRows, map_rows(call) - first);
    const int64_t reach = rows + call.height - 1, columns = padded_columns<T>(call);
    for (int64_t c = 0; c < call.shape[1]; ++c)
        for (int64_t r = 0; r < reach; ++r)
            memory.rows[c * reach + r] =
                load_row<T>(call.image, call.shape, Border::zero, n, c, 0, first + r, 0,
                            smaller(columns, call.shape[4]), columns,
                            memory.copies + (c * reach + r) * columns);
    for (int64_t i = 0; i < rows; ++i) {
        if (call.weights)
            search_row<T, true>(call, memory.rows + i, reach, memory.sums);
        else
            search_row<T, false>(call, memory.rows + i, reach, memory.sums);
        store_sums(call, n, first + i, memory.sums);
    }
}

}  // namespace
