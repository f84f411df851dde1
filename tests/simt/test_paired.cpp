// SPDX-License-Identifier: Apache-2.0
//
// Paired rows on the emulator: grids of several blocks, rows that blocks share, for the sanitizers.
// All shapes, dtypes and layouts are tested from Python, with the same kernels.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/cuda/paired.cuh"

namespace {

using namespace sosie;

int g_failures = 0;

void check_close(double actual, double expected, const std::string& what) {
    // Products of a few numbers in float, of size 1.
    if (std::fabs(actual - expected) <= 1e-6 * (1.0 + std::fabs(expected))) return;
    ++g_failures;
    std::printf("FAILED %s: expected %.9g, got %.9g\n", what.c_str(), expected, actual);
}

StridedArray array_of(const void* data, long long step, std::vector<long long> strides) {
    StridedArray array{const_cast<void*>(data), step, {}, kFloat32};
    std::copy(strides.begin(), strides.end(), array.strides);
    return array;
}

// Rows (count, length) of x, and of y, or one of y for all.
struct Rows {
    long long count, length;
    bool shared;
    std::vector<float> x, y, upstream, value, norm_x, norm_y;

    Rows(long long n, long long d, bool s) : count(n), length(d), shared(s) {
        for (long long i = 0; i < n * d; ++i) x.push_back(float(i * 37 % 101) / 100 - 0.3f);
        for (long long i = 0; i < (s ? 1 : n) * d; ++i) y.push_back(float(i * 53 % 97) / 100);
        for (long long i = 0; i < n; ++i) upstream.push_back(float(i % 5) - 1.5f);
        value.assign(size_t(n), NAN);
        norm_x = norm_y = value;
    }
    float at(long long row, long long k, bool second) const {
        if (!second) return x[size_t(row * length + k)];
        return y[size_t((shared ? 0 : row) * length + k)];
    }
    double sum(long long row, int which) const {
        double total = 0;
        for (long long k = 0; k < length; ++k)
            total += double(at(row, k, which == 2)) * at(row, k, which != 1);
        return total;
    }
    double similarity(long long row) const {
        return sum(row, 0) / std::sqrt(sum(row, 1) * sum(row, 2));
    }
    double slope(long long row, long long k, bool of_y) const {
        const double own = sum(row, of_y ? 2 : 1), both = std::sqrt(sum(row, 1) * sum(row, 2));
        return double(upstream[size_t(row)]) *
               (double(at(row, k, !of_y)) / both - similarity(row) / own * at(row, k, of_y));
    }
    PairedCut cut(int splits) const {
        PairedCut c{};
        c.pairs = {count, {count}, 1};
        c.length = length;
        c.pack = shared ? 1 : kPairedPack<float>;
        c.rows = 8;
        c.along = !shared;
        c.splits = splits;
        c.split = divide_up(divide_up(length, splits), c.pack) * c.pack;
        return c;
    }
};

void check_rows(Rows rows, simt::Order order, const std::string& what) {
    const unsigned groups = unsigned(divide_up(rows.count, 8)), splits = 3;
    PairedForward f{};
    f.cut = rows.cut(splits);
    f.x = array_of(rows.x.data(), 1, {rows.length});
    f.y = array_of(rows.y.data(), 1, {rows.shared ? 0 : rows.length});
    f.value = array_of(rows.value.data(), 0, {1});
    f.norm_x = array_of(rows.norm_x.data(), 0, {1});
    f.norm_y = array_of(rows.norm_y.data(), 0, {1});
    f.cosine = 1;
    std::vector<double> partials(groups * splits * 3 * 8, NAN);
    std::vector<unsigned> tickets(groups);
    f.partials = partials.data();
    f.tickets = tickets.data();
    simt::launch(order, dim3(groups * splits), dim3(kPairedThreads), 0, paired_forward<float>, f);
    for (long long i = 0; i < rows.count; ++i) {
        check_close(rows.value[size_t(i)], rows.similarity(i), what + " similarity");
        check_close(rows.norm_x[size_t(i)], std::sqrt(rows.sum(i, 1)), what + " norm");
    }

    std::vector<float> grad_x(rows.x.size(), NAN), grad_y(rows.y.size(), NAN);
    PairedBackward b{};
    b.cut = rows.cut(splits);
    b.x = f.x;
    b.y = f.y;
    b.grad_x = array_of(grad_x.data(), 1, {rows.length});
    if (!rows.shared) b.grad_y = array_of(grad_y.data(), 1, {rows.length});
    b.value = f.value;
    b.norm_x = f.norm_x;
    b.norm_y = f.norm_y;
    b.upstream = array_of(rows.upstream.data(), 0, {1});
    b.cosine = 1;
    simt::launch(order, dim3(groups * splits), dim3(kPairedThreads), 0, paired_backward<float>, b);
    if (rows.shared) {
        PairedSharedBackward s{};
        s.kept = {rows.length, {rows.length}, 1};
        s.summed = {rows.count, {rows.count}, 1};
        const StridedArray* arrays[6] = {&f.y, &f.x, &f.value, &f.norm_y, &f.norm_x, &b.upstream};
        for (int i = 0; i < 6; ++i) {
            s.of_kept[i] = array_of(arrays[i]->data, 0, {i < 2 ? 1 : 0});
            s.of_summed[i] = array_of(arrays[i]->data, 0, {arrays[i]->strides[0]});
        }
        s.cosine = 1;
        s.gradient = array_of(grad_y.data(), 0, {});
        s.lanes = 32;
        s.splits = 2;
        const unsigned blocks = unsigned(divide_up(rows.length, 32));
        partials.assign(blocks * 2 * 32, NAN);
        tickets.assign(blocks, 0);
        s.partials = partials.data();
        s.tickets = tickets.data();
        simt::launch(order, dim3(blocks * 2), dim3(kPairedThreads), 0,
                     paired_shared_backward<float>, s);
    }
    std::vector<double> expected_y(grad_y.size());
    for (long long i = 0; i < rows.count; ++i)
        for (long long k = 0; k < rows.length; ++k) {
            check_close(grad_x[size_t(i * rows.length + k)], rows.slope(i, k, false),
                        what + " gradient of x");
            expected_y[size_t((rows.shared ? 0 : i) * rows.length + k)] += rows.slope(i, k, true);
        }
    for (size_t i = 0; i < grad_y.size(); ++i)
        check_close(grad_y[i], expected_y[i], what + " gradient of y");
}

}  // namespace

int main() {
    for (const simt::Order order : {simt::Order::forward, simt::Order::reverse}) {
        check_rows(Rows(19, 300, false), order, "along");
        check_rows(Rows(21, 75, true), order, "shared");
    }
    std::printf("%d failed\n", g_failures);
    return g_failures != 0;
}
