// SPDX-License-Identifier: Apache-2.0
//
// The matrix of distances of all pairs. A task is a block of rows and columns; values leave the
// registers once, past the caches where the whole result is larger than they are.
//
// Floor: rows * columns * dims subtractions and multiply-adds, or, for few dimensions, one store
// per pair.
#pragma once
#include "distance-inl.hpp"

namespace {

using sosie::DistanceForward;
using sosie::NoPartial;

// Results that outgrow a last-level cache are not read back from it: storing past it saves reading
// the lines first.
constexpr int64_t kStreamedBytes = int64_t(16) << 20;

constexpr int64_t kTaskColumns = 512;

template <class T>
struct BlockGrid {
    int64_t rows, columns;  // of a block
    int64_t row_blocks, column_blocks;

    explicit BlockGrid(const DistanceProblem& p) {
        row_blocks = larger(divide_up(p.rows, block_rows<T>(p.dims)), 1);
        rows = round_up(divide_up(p.rows, row_blocks), kTileRows);
        row_blocks = divide_up(p.rows, larger(rows, 1));
        // Packed panels are there for all; rows are packed anew by every task.
        const int64_t most = larger(block_columns<T>(p.dims), p.panels ? kTaskColumns : 0);
        column_blocks = larger(divide_up(p.columns, most), 1);
        columns = round_up(divide_up(p.columns, column_blocks), kPanelColumns<T>);
        column_blocks = divide_up(p.columns, larger(columns, 1));
    }
};

template <class T>
int64_t distance_tasks(const DistanceForward& call) {
    const BlockGrid<T> grid(call.problem);
    return call.problem.batch * grid.row_blocks * grid.column_blocks;
}

template <class T>
size_t distance_scratch(const DistanceForward& call) {
    Arena arena(nullptr);
    const BlockWalk<T> walk(call.problem, arena);
    return arena.used();
}

// Where a task's block lies, and where its values go.
template <class T>
class DistanceTask {
  public:
    DistanceTask(const DistanceForward& call, int64_t task) : call_(call), p_(call.problem) {
        const BlockGrid<T> grid(p_);
        const int64_t blocks = grid.row_blocks * grid.column_blocks;
        n_ = task / blocks;
        row_ = task % blocks / grid.column_blocks * grid.rows;
        column_ = task % grid.column_blocks * grid.columns;
        rows_ = smaller(grid.rows, p_.rows - row_);
        columns_ = smaller(grid.columns, p_.columns - column_);
        const int64_t bytes = p_.batch * p_.rows * p_.columns * int64_t(sizeof(T));
        const auto address = reinterpret_cast<std::uintptr_t>(call.distances.data);
        const int64_t pitch = call.distances.strides[1] * int64_t(sizeof(T));
        const bool aligned = address % SOSIE_VECTOR_BYTES == 0 && pitch % SOSIE_VECTOR_BYTES == 0 &&
                             call.distances.strides[0] % kLanes<T> == 0;
        streamed_ = bytes >= kStreamedBytes && aligned;
    }

    void run(void* scratch) const {
        Arena arena(scratch);
        BlockWalk<T> walk(p_, arena);
        walk.begin(n_, row_, rows_);
        switch (p_.metric) {
            case Metric::euclidean: return run_metric<Metric::euclidean>(walk);
            case Metric::sqeuclidean: return run_metric<Metric::sqeuclidean>(walk);
            case Metric::cosine: return run_metric<Metric::cosine>(walk);
        }
    }

  private:
    template <Metric M>
    void run_metric(const BlockWalk<T>& walk) const {
        const int64_t most = block_columns<T>(p_.dims), end = column_ + columns_;
        for (int64_t begin = column_; begin < end; begin += most)
            walk.run(begin, smaller(most, end - begin),
                     [this](int64_t row, int64_t column, const Vec<T>* sums) {
                         write<M>(row, column, sums);
                     });
    }

    template <Metric M>
    void write(int64_t row, int64_t column, const Vec<T>* sums) const {
        T* out = static_cast<T*>(call_.distances.data) + n_ * call_.distances.strides[0] +
                 row * call_.distances.strides[1] + column;
        const int64_t count = p_.columns - column;
        if (M != Metric::cosine && count >= kPanelColumns<T>) {
#pragma GCC unroll 8
            for (int c = 0; c < kTileVectors; ++c) {
                const Vec<T> value = M == Metric::euclidean ? square_root<T>(sums[c]) : sums[c];
                if (streamed_)
                    stream<T>(out + c * kLanes<T>, value);
                else
                    store<T>(out + c * kLanes<T>, value);
            }
            return;
        }
        T values[kPanelColumns<T>];
        for (int c = 0; c < kTileVectors; ++c) {
            const Vec<T> value = M == Metric::euclidean ? square_root<T>(sums[c]) : sums[c];
            store<T>(values + c * kLanes<T>, value);
        }
        const int64_t kept = smaller(count, kPanelColumns<T>);
        if (M == Metric::cosine) finish_cosine<T>(p_, n_, row, column, kept, values);
        __builtin_memcpy(out, values, size_t(kept) * sizeof(T));
    }

    const DistanceForward& call_;
    const DistanceProblem& p_;
    int64_t n_, row_, column_, rows_, columns_;
    bool streamed_;
};

template <class T>
void run_distance(const DistanceForward& call, int64_t task, void* scratch, NoPartial*) {
    DistanceTask<T>(call, task).run(scratch);
    finish_streams();
}

}  // namespace
