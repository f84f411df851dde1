// SPDX-License-Identifier: Apache-2.0
//
// The k nearest columns of every row, without the matrix: a block of distances is made in cache,
// and what is nearer than a row's k-th nearest so far enters its heap. After the first blocks that
// is almost nothing, so a distance costs one comparison.
//
// Order: by distance, then by index. NaN is never near.
#pragma once
#include "distance-inl.hpp"

namespace {

using sosie::NearestNeighbours;
using sosie::Neighbour;

// With few rows the columns are shared out among tasks as well.
constexpr int64_t kSharedBlocks = 16;
constexpr int64_t kLeastRange = 1024;

template <class T>
int64_t neighbour_rows(const NearestNeighbours& call) {
    const DistanceProblem& p = call.problem;
    const int64_t most = block_rows<T>(p.dims);
    const int64_t blocks = larger(divide_up(p.rows, most), 1);
    return larger(round_up(divide_up(p.rows, blocks), kTileRows), kTileRows);
}

template <class T>
int64_t column_ranges(const NearestNeighbours& call) {
    const int64_t blocks = divide_up(call.problem.rows, neighbour_rows<T>(call));
    if (blocks >= kSharedBlocks) return 1;
    const int64_t least = larger(kLeastRange, 4 * call.k);
    return larger(smaller(kSharedBlocks / larger(blocks, 1), call.problem.columns / least), 1);
}

inline bool nearer(const Neighbour& a, const Neighbour& b) {
    return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
}

// A heap with the farthest of its k neighbours on top. Starts with k places that anything with a
// distance takes.
class NearestHeap {
  public:
    NearestHeap(Neighbour* places, int64_t k) : places_(places), k_(k) {}

    void clear() {
        for (int64_t i = 0; i < k_; ++i) places_[i] = {__builtin_inf(), INT64_MAX};
    }
    const Neighbour& farthest() const { return places_[0]; }
    void replace_farthest(const Neighbour& found) { sift(found, k_); }

    // Ascending; places that nothing took have index -1.
    void sort() {
        for (int64_t end = k_ - 1; end > 0; --end) {
            const Neighbour last = places_[end];
            places_[end] = places_[0];
            sift(last, end);
        }
        for (int64_t i = 0; i < k_; ++i)
            if (places_[i].index == INT64_MAX) places_[i].index = -1;
    }

  private:
    void sift(const Neighbour& value, int64_t size) {
        int64_t at = 0;
        for (int64_t child = 1; child < size; child = 2 * at + 1) {
            if (child + 1 < size && nearer(places_[child], places_[child + 1])) ++child;
            if (!nearer(value, places_[child])) break;
            places_[at] = places_[child];
            at = child;
        }
        places_[at] = value;
    }

    Neighbour* places_;
    int64_t k_;
};

template <class T>
class NeighbourTask {
  public:
    NeighbourTask(const NearestNeighbours& call, int64_t task, void* scratch)
        : call_(call), p_(call.problem), arena_(scratch), walk_(p_, arena_) {
        const int64_t ranges = column_ranges<T>(call);
        const int64_t block = neighbour_rows<T>(call);
        block_ = arena_.take<T>(block * kPitch);
        const int64_t width = round_up(divide_up(p_.columns, ranges), kPanelColumns<T>);
        range_ = task % ranges;
        row_ = task / ranges * block;
        rows_ = smaller(block, p_.rows - row_);
        column_begin_ = smaller(range_ * width, p_.columns);
        column_end_ = smaller(column_begin_ + width, p_.columns);
    }
    size_t scratch_bytes() const { return arena_.used(); }

    void run() {
        for (int64_t r = 0; r < rows_; ++r) heap(r).clear();
        walk_.begin(0, row_, rows_);
        for (int64_t column = column_begin_; column < column_end_; column += kBlockColumns) {
            const int64_t columns = smaller(kBlockColumns, column_end_ - column);
            walk_.run(column, columns, [&](int64_t row, int64_t at, const Vec<T>* sums) {
                T* out = block_ + (row - row_) * kPitch + (at - column);
#pragma GCC unroll 8
                for (int c = 0; c < kTileVectors; ++c) store<T>(out + c * kLanes<T>, sums[c]);
            });
            for (int64_t r = 0; r < rows_; ++r) scan(r, column, columns);
        }
        for (int64_t r = 0; r < rows_; ++r) heap(r).sort();
    }

  private:
    static constexpr int64_t kPitch = kBlockColumns + 4 * kPanelColumns<T>;

    NearestHeap heap(int64_t r) const {
        return {call_.found + (range_ * p_.rows + row_ + r) * call_.k, call_.k};
    }

    void scan(int64_t r, int64_t column, int64_t columns) {
        T* values = block_ + r * kPitch;
        if (p_.metric == Metric::cosine) finish_cosine<T>(p_, 0, row_ + r, column, columns, values);
        // Padding is no neighbour: NaN is never near.
        for (int64_t i = columns; i < round_up(columns, kLanes<T>); ++i)
            values[i] = T(__builtin_nan(""));
        NearestHeap nearest = heap(r);
        for (int64_t i = 0; i < columns; i += kLanes<T>) {
            // An equal distance can only matter while places are free.
            const Vec<T> farthest = splat<T>(T(nearest.farthest().distance));
            if (!any<T>(load<T>(values + i) <= farthest)) continue;
            for (int64_t j = i; j < i + kLanes<T>; ++j) {
                const Neighbour found{double(values[j]), column + j};
                const bool self = call_.exclude_self && found.index == row_ + r;
                if (!self && nearer(found, nearest.farthest())) nearest.replace_farthest(found);
            }
        }
    }

    const NearestNeighbours& call_;
    const DistanceProblem& p_;
    Arena arena_;
    BlockWalk<T> walk_;
    T* block_;
    int64_t range_, row_, rows_, column_begin_, column_end_;
};

template <class T>
int64_t neighbour_tasks(const NearestNeighbours& call) {
    return divide_up(call.problem.rows, neighbour_rows<T>(call)) * column_ranges<T>(call);
}
template <class T>
size_t neighbour_scratch(const NearestNeighbours& call) {
    return NeighbourTask<T>(call, 0, nullptr).scratch_bytes();
}
template <class T>
void run_neighbours(const NearestNeighbours& call, int64_t task, void* scratch, sosie::NoPartial*) {
    NeighbourTask<T>(call, task, scratch).run();
}

}  // namespace
