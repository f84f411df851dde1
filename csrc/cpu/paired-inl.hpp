// SPDX-License-Identifier: Apache-2.0
//
// Distances of paired rows: one pass over both arrays, nothing stored but the results.
//
//     euclidean   d = sqrt(sum (x - y)^2)
//     cosine      s = sum x y / (|x|' |y|'),   n' = n < floor ? replacement : n
//
// Where the elements of a row are neighbours in memory, vectors lie along it; else each lane has a
// row of its own, so that neighbouring rows are read together. Products are added up in the
// computing type, 16 at most, then in double: 16 roundings of 2^-24 stay below 1e-6 however long
// the row is. The floor is memory: 8 bytes a pair of float32 numbers against 2 operations
// (euclidean) or 3 (cosine).
#pragma once
#include "lanes-inl.hpp"
#include "paired-call.hpp"

namespace {

using sosie::PairedAxis;
using sosie::PairedCall;
using sosie::PairedKind;
using sosie::PairedPartial;
using sosie::PairedPlace;

// Pairs of elements of one task: half a megabyte of float32, hundreds of times what it costs to
// hand out a task.
constexpr int64_t kTaskElements = 1 << 16;
// With this many tasks, no row needs to be cut for the threads' sake.
constexpr int64_t kAmpleTasks = 256;
// Neighbouring rows that are walked together: with all that is known about each they stay in the
// L1 cache, and what is read of each array at once fills half a page.
constexpr int64_t kColumns = 512;
// Elements of each of these rows that are added up before the sums are stored: as many streams of
// each array as caches of eight ways bear whose sets collide, as those of sizes of powers of two
// do.
constexpr int64_t kRowsAtOnce = 4;

// ---------------------------------------------------------------------------------------- walking

// Where all operands are, pair after pair.
class Walk {
  public:
    Walk(const PairedCall& call, int axes, int64_t pair) : call_(call), axes_(axes) {
        for (int place = 0; place < sosie::kPairedPlaces; ++place) offset_[place] = 0;
        for (int a = axes - 1; a >= 0; --a) {
            const PairedAxis& axis = call.axis[a];
            index_[a] = pair % axis.size;
            pair /= axis.size;
            move(axis, index_[a]);
        }
    }
    void next() {
        for (int a = axes_ - 1; a >= 0; --a) {
            const PairedAxis& axis = call_.axis[a];
            move(axis, 1);
            if (++index_[a] < axis.size) return;
            move(axis, -axis.size);
            index_[a] = 0;
        }
    }
    template <class Number>
    Number* at(PairedPlace place) const {
        return static_cast<Number*>(call_.operands[place].data) + offset_[place];
    }

  private:
    void move(const PairedAxis& axis, int64_t count) {
        for (int place = 0; place < sosie::kPairedPlaces; ++place)
            offset_[place] += count * axis.strides[place];
    }

    const PairedCall& call_;
    int axes_;
    int64_t index_[sosie::kPairedAxes], offset_[sosie::kPairedPlaces];
};

// How a call is cut into tasks, by its sizes alone. A unit is a row, or a block of columns: rows
// that are neighbours along the last axis.
struct Cut {
    bool along;       // vectors lie along rows
    int64_t columns;  // size of the last axis
    int64_t blocks;   // of columns
    int64_t units;
    int64_t units_per_task;
    int64_t segments;  // of a row
    int64_t segment;   // elements
    int64_t tasks() const { return divide_up(units, units_per_task) * segments; }
};

inline bool rows_are_dense(const PairedCall& call) {
    return call.operands[sosie::kX].step == 1 && call.operands[sosie::kY].step == 1;
}

template <class T>
Cut cut(const PairedCall& call) {
    int64_t pairs = 1;
    for (int a = 0; a < call.axes; ++a) pairs *= call.axis[a].size;
    Cut c{};
    c.columns = call.axis[call.axes - 1].size;
    c.along = c.columns < kLanes<T> || (rows_are_dense(call) && call.length >= kLanes<T>);
    c.blocks = divide_up(c.columns, kColumns);
    c.units = c.along ? pairs : pairs == 0 ? 0 : pairs / c.columns * c.blocks;
    const int64_t elements =
        larger(1, c.along ? call.length : call.length * divide_up(c.columns, c.blocks));
    c.units_per_task = larger(1, kTaskElements / elements);
    const bool ample = divide_up(c.units, c.units_per_task) >= kAmpleTasks;
    const int64_t pieces = ample ? 1 : larger(1, elements / kTaskElements);
    c.segment = larger(1, round_up(divide_up(call.length, pieces), kRowsAtOnce));
    c.segments = larger(1, divide_up(call.length, c.segment));
    return c;
}

// One unit's share of a task. Columns are cut evenly, so no block has fewer than a vector.
struct Unit {
    int64_t outer, first_column, columns;
};
inline Unit unit_of(const Cut& c, int64_t unit) {
    const int64_t outer = unit / c.blocks, block = unit % c.blocks;
    const int64_t begin = block * c.columns / c.blocks;
    return {outer, begin, (block + 1) * c.columns / c.blocks - begin};
}

// Vectors that cover `columns`: the last one begins early, and does some of them again.
template <class T>
inline int64_t first_of(int64_t vector, int64_t columns) {
    return smaller(vector * kLanes<T>, columns - kLanes<T>);
}

// Calls run(Source) with the type of the elements of x and y.
template <class T, class Run>
void with_source(const PairedCall& call, Run run) {
    if constexpr (sizeof(T) == 8) {
        run(double{});
    } else {
        switch (call.operands[sosie::kX].dtype) {
            case DType::u8: return run(uint8_t{});
            case DType::u16: return run(uint16_t{});
            case DType::f16: return run(Half{});
            case DType::bf16: return run(BrainHalf{});
            default: return run(float{});
        }
    }
}

// ------------------------------------------------------------------------------------------- sums

// What is added up over a row.
template <class T>
struct Difference {
    static constexpr int count = 1;
    static void add(Vec<T> x, Vec<T> y, Vec<T>* sums) {
        const Vec<T> d = x - y;
        sums[0] += d * d;
    }
};
template <class T>
struct Products {
    static constexpr int count = 3;
    static void add(Vec<T> x, Vec<T> y, Vec<T>* sums) {
        sums[0] += x * y;
        sums[1] += x * x;
        sums[2] += y * y;
    }
};

// Positions [begin, end) of one row.
template <template <class> class Terms, class T, class Reads>
void sum_row(const Reads& x, const Reads& y, int64_t begin, int64_t end, double* sums) {
    constexpr int chains = 4, count = Terms<T>::count;
    constexpr int64_t step = chains * kLanes<T>, block = 16 * step;
    Vec<double> total[count] = {};
    for (int64_t i = begin; i < end;) {
        Vec<T> sum[chains][count] = {};
        const int64_t stop = smaller(end, i + block);
        for (; i + step <= stop; i += step)
#pragma GCC unroll 4
            for (int chain = 0; chain < chains; ++chain) {
                const int64_t at = i + chain * kLanes<T>;
                Terms<T>::add(x.at(at), y.at(at), sum[chain]);
            }
        for (; i < stop; i += kLanes<T>)
            Terms<T>::add(x.some(i, stop - i), y.some(i, stop - i), sum[0]);
        for (int chain = 0; chain < chains; ++chain)
            for (int k = 0; k < count; ++k) total[k] += folded(sum[chain][k]);
    }
    for (int k = 0; k < count; ++k) sums[k] = sum_of(total[k]);
}

// Adds `Rows` elements of each of the rows that are columns; sums: (count, slots).
template <template <class> class Terms, int Rows, class T, class Reads>
inline void add_elements(const Reads* x, const Reads* y, int64_t columns, int64_t slots,
                         double* sums) {
    constexpr int count = Terms<T>::count;
    for (int64_t slot = 0; slot < slots; slot += kLanes<T>) {
        const int64_t column = first_of<T>(slot / kLanes<T>, columns);
        Vec<T> sum[count] = {};
#pragma GCC unroll 4
        for (int row = 0; row < Rows; ++row)
            Terms<T>::add(x[row].at(column), y[row].at(column), sum);
        for (int k = 0; k < count; ++k) add_lanes(sums + k * slots + slot, sum[k]);
    }
}

// The same rows, element by element; x and y are where their first elements are.
template <template <class> class Terms, class T, class Reads>
void sum_columns(Reads x, Reads y, int64_t x_step, int64_t y_step, int64_t length, int64_t columns,
                 int64_t slots, double* sums) {
    for (int64_t i = 0; i < Terms<T>::count * slots; ++i) sums[i] = 0;
    for (int64_t i = 0; i < length; i += kRowsAtOnce) {
        Reads xs[kRowsAtOnce], ys[kRowsAtOnce];
        const int64_t rows = smaller(kRowsAtOnce, length - i);
        for (int64_t row = 0; row < rows; ++row) {
            xs[row] = {x.data + (i + row) * x_step, x.stride};
            ys[row] = {y.data + (i + row) * y_step, y.stride};
        }
        switch (rows) {
            case 1: add_elements<Terms, 1, T>(xs, ys, columns, slots, sums); break;
            case 2: add_elements<Terms, 2, T>(xs, ys, columns, slots, sums); break;
            case 3: add_elements<Terms, 3, T>(xs, ys, columns, slots, sums); break;
            default: add_elements<Terms, 4, T>(xs, ys, columns, slots, sums);
        }
    }
}

// ---------------------------------------------------------------------------------------- results

// Similarities of `slots` pairs. Loops that are vectors when compiled: where rows are short, a root
// and a quotient for each of them take longer than reading it.
template <class T>
void cosines(const PairedCall& call, int64_t slots, const double* __restrict xy,
             const double* __restrict xx, const double* __restrict yy, T* __restrict value) {
    const double floor = call.floor, replacement = call.replacement;
    for (int64_t i = 0; i < slots; ++i) {
        double by;
        if constexpr (sizeof(T) == 4) {
            // One root in place of two: the squares of float norms cannot leave the range of
            // double.
            const double x = xx[i] < floor * floor ? replacement * replacement : xx[i];
            const double y = yy[i] < floor * floor ? replacement * replacement : yy[i];
            by = __builtin_sqrt(x * y);
        } else {
            const double x = __builtin_sqrt(xx[i]), y = __builtin_sqrt(yy[i]);
            by = (x < floor ? replacement : x) * (y < floor ? replacement : y);
        }
        const double s = xy[i] / by;
        // Rounding may lead beyond what a cosine can be; NaN is in neither case.
        value[i] = T(s > 1 ? 1 : s < -1 ? -1 : s);
    }
}

template <class T>
void roots(int64_t slots, const double* __restrict squares, T* __restrict out) {
    for (int64_t i = 0; i < slots; ++i)
        out[i] =
            sizeof(T) == 4 ? T(__builtin_sqrtf(float(squares[i]))) : T(__builtin_sqrt(squares[i]));
}

// Results of `slots` pairs from their sums (count, slots), into arrays of the computing type. Norms
// are left out where nobody wants them.
template <class T>
void finish_slots(const PairedCall& call, const double* sums, int64_t slots, T* value, T* norm_x,
                  T* norm_y) {
    if (call.kind == PairedKind::euclidean) return roots<T>(slots, sums, value);
    cosines<T>(call, slots, sums, sums + slots, sums + 2 * slots, value);
    if (call.operands[sosie::kNormX].data == nullptr) return;
    roots<T>(slots, sums + slots, norm_x);
    roots<T>(slots, sums + 2 * slots, norm_y);
}

template <class T>
void write_one(const PairedCall& call, const Walk& walk, const double* sums) {
    T value = 0, norm_x = 0, norm_y = 0;
    finish_slots<T>(call, sums, 1, &value, &norm_x, &norm_y);
    *walk.at<T>(sosie::kValue) = value;
    if (call.operands[sosie::kNormX].data == nullptr) return;
    *walk.at<T>(sosie::kNormX) = norm_x;
    *walk.at<T>(sosie::kNormY) = norm_y;
}

template <class T>
void finish_segments(const PairedCall& call) {
    const Cut c = cut<T>(call);
    int64_t pairs = 1;
    for (int a = 0; a < call.axes; ++a) pairs *= call.axis[a].size;
    if (pairs == 0) return;
    Walk walk(call, call.axes, 0);
    for (int64_t pair = 0; pair < pairs; ++pair, walk.next()) {
        double total[3] = {};
        for (int64_t segment = 0; segment < c.segments; ++segment)
            for (int k = 0; k < 3; ++k)
                total[k] += call.sums[(pair * c.segments + segment) * 3 + k];
        write_one<T>(call, walk, total);
    }
}

// ------------------------------------------------------------------------------------------ tasks

template <template <class> class Terms, class T, class Source, bool Dense>
void forward_rows(const PairedCall& call, const Cut& c, int64_t first, int64_t last,
                  int64_t segment) {
    const int64_t begin = segment * c.segment, end = smaller(call.length, begin + c.segment);
    Walk walk(call, call.axes, first);
    for (int64_t pair = first; pair < last; ++pair, walk.next()) {
        const Reader<T, Source, Dense> x{walk.at<Source>(sosie::kX), call.operands[sosie::kX].step};
        const Reader<T, Source, Dense> y{walk.at<Source>(sosie::kY), call.operands[sosie::kY].step};
        double sums[3] = {};
        sum_row<Terms, T>(x, y, begin, end, sums);
        if (call.sums == nullptr) {
            write_one<T>(call, walk, sums);
        } else {
            double* place = call.sums + (pair * c.segments + segment) * 3;
            for (int k = 0; k < 3; ++k) place[k] = sums[k];
        }
    }
}

template <class T>
void write_columns(const PairedCall& call, const Walk& walk, const Unit& unit, int64_t slots,
                   const double* sums, T* results) {
    T* columns[3] = {results, results + slots, results + 2 * slots};
    finish_slots<T>(call, sums, slots, columns[0], columns[1], columns[2]);
    const PairedAxis& last = call.axis[call.axes - 1];
    for (int k = 0; k < 3; ++k) {
        const auto place = PairedPlace(sosie::kValue + k);
        if (call.operands[place].data == nullptr) continue;
        const int64_t stride = last.strides[place];
        const Writer<T, T> out{walk.at<T>(place) + unit.first_column * stride, stride, false};
        for (int64_t slot = 0; slot < slots; slot += kLanes<T>)
            out.put(first_of<T>(slot / kLanes<T>, unit.columns), load<T>(columns[k] + slot));
    }
}

template <template <class> class Terms, class T, class Source, bool Dense>
void forward_columns(const PairedCall& call, const Cut& c, int64_t first, int64_t last,
                     int64_t segment, double* scratch) {
    const int64_t begin = segment * c.segment, end = smaller(call.length, begin + c.segment);
    const PairedAxis& columns = call.axis[call.axes - 1];
    const int64_t x_stride = columns.strides[sosie::kX], y_stride = columns.strides[sosie::kY];
    const int64_t x_step = call.operands[sosie::kX].step, y_step = call.operands[sosie::kY].step;
    for (int64_t u = first; u < last; ++u) {
        const Unit unit = unit_of(c, u);
        const int64_t slots = round_up(unit.columns, kLanes<T>);
        const Walk walk(call, call.axes - 1, unit.outer);
        const Reader<T, Source, Dense> x{
            walk.at<Source>(sosie::kX) + unit.first_column * x_stride + begin * x_step, x_stride};
        const Reader<T, Source, Dense> y{
            walk.at<Source>(sosie::kY) + unit.first_column * y_stride + begin * y_step, y_stride};
        sum_columns<Terms, T>(x, y, x_step, y_step, end - begin, unit.columns, slots, scratch);
        if (call.sums == nullptr) {
            write_columns<T>(call, walk, unit, slots, scratch,
                             reinterpret_cast<T*>(scratch + 3 * kColumns));
            continue;
        }
        for (int64_t slot = 0; slot < slots; ++slot) {
            const int64_t column =
                unit.first_column + slot % kLanes<T> + first_of<T>(slot / kLanes<T>, unit.columns);
            double* place =
                call.sums + ((unit.outer * c.columns + column) * c.segments + segment) * 3;
            for (int k = 0; k < Terms<T>::count; ++k) place[k] = scratch[k * slots + slot];
        }
    }
}

template <template <class> class Terms, class T>
void run_forward_of(const PairedCall& call, int64_t task, double* scratch) {
    const Cut c = cut<T>(call);
    const int64_t segment = task % c.segments, first = task / c.segments * c.units_per_task;
    const int64_t last = smaller(c.units, first + c.units_per_task);
    const PairedAxis& columns = call.axis[call.axes - 1];
    const bool dense = c.along ? rows_are_dense(call)
                               : columns.strides[sosie::kX] == 1 && columns.strides[sosie::kY] == 1;
    with_source<T>(call, [&](auto element) {
        using Source = decltype(element);
        if (c.along && dense)
            forward_rows<Terms, T, Source, true>(call, c, first, last, segment);
        else if (c.along)
            forward_rows<Terms, T, Source, false>(call, c, first, last, segment);
        else if (dense)
            forward_columns<Terms, T, Source, true>(call, c, first, last, segment, scratch);
        else
            forward_columns<Terms, T, Source, false>(call, c, first, last, segment, scratch);
    });
}

template <class T>
void run_paired_forward(const PairedCall& call, int64_t task, void* scratch, PairedPartial*) {
    if (call.kind == PairedKind::euclidean)
        run_forward_of<Difference, T>(call, task, static_cast<double*>(scratch));
    else
        run_forward_of<Products, T>(call, task, static_cast<double*>(scratch));
}

template <class T>
int64_t paired_tasks(const PairedCall& call) {
    return cut<T>(call).tasks();
}
template <class T>
int64_t paired_segments(const PairedCall& call) {
    return cut<T>(call).segments;
}
// Of each of a block's columns, three sums and three results, or the seven numbers of a gradient.
template <class T>
size_t paired_scratch(const PairedCall&) {
    return size_t(7 * kColumns) * sizeof(double);
}

}  // namespace
