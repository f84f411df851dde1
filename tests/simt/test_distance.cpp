// SPDX-License-Identifier: Apache-2.0
//
// Distances between sets of vectors on the emulator: grids of several blocks, for the sanitizers.
// All shapes, dtypes, layouts and metrics are tested from Python, with the same kernels.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/cuda/distance-gradient.cuh"
#include "../../csrc/cuda/distance-neighbours.cuh"
#include "../../csrc/cuda/distance-tile.cuh"

namespace {

using namespace sosie;

int g_failures = 0;

void check(bool right, const std::string& what) {
    if (right) return;
    ++g_failures;
    std::printf("FAILED %s\n", what.c_str());
}
bool close(double actual, double expected) {
    // What is promised of float32.
    return std::fabs(actual - expected) <= 2e-5 * std::fabs(expected);
}

// Sets (rows, dims) and (columns, dims) of small whole numbers around an offset, with some of the
// first set's vectors in the second.
struct Sets {
    long long rows, columns, dims;
    std::vector<float> a, b;
    std::vector<double> norms_a, norms_b;

    Sets(long long n, long long m, long long d, float offset) : rows(n), columns(m), dims(d) {
        for (long long i = 0; i < n * d; ++i) a.push_back(offset + float(i * i * 37 % 101 % 7));
        for (long long i = 0; i < m * d; ++i) b.push_back(offset + float(i * i * 53 % 97 % 7));
        for (long long j = 0; j < m; j += 9)
            std::copy_n(a.begin() + j % n * d, d, b.begin() + j * d);
        for (long long i = 0; i < n; ++i) norms_a.push_back(length(a, i));
        for (long long j = 0; j < m; ++j) norms_b.push_back(length(b, j));
    }
    double length(const std::vector<float>& set, long long row) const {
        double sum = 0;
        for (long long k = 0; k < dims; ++k)
            sum += double(set[size_t(row * dims + k)]) * set[size_t(row * dims + k)];
        return std::sqrt(sum);
    }
    double squared(long long i, long long j, int metric) const {
        double sum = 0;
        for (long long k = 0; k < dims; ++k) {
            double u = a[size_t(i * dims + k)], v = b[size_t(j * dims + k)];
            if (metric == kCosine) {
                u /= norms_a[size_t(i)];
                v /= norms_b[size_t(j)];
            }
            sum += (u - v) * (u - v);
        }
        return metric == kCosine ? sum / 2 : sum;
    }
    DistanceProblem problem(int metric) const {
        DistanceProblem p{};
        p.batch = 1;
        p.rows = rows;
        p.columns = columns;
        p.dims = dims;
        p.a = {a.data(), 0, dims, 1, norms_a.data(), 0, kFloat32};
        p.b = {b.data(), 0, dims, 1, norms_b.data(), 0, kFloat32};
        p.metric = metric;
        return p;
    }
};

// Centred rows, their squares and products, as a library's multiplication would make them.
struct Products {
    std::vector<double> centre;
    std::vector<float> rows_a, rows_b, squares_a, squares_b, values;

    Products(const Sets& sets, simt::Order order)
        : centre(size_t(sets.dims), NAN),
          rows_a(sets.a.size(), NAN),
          rows_b(sets.b.size(), NAN),
          squares_a(size_t(sets.rows), NAN),
          squares_b(size_t(sets.columns), NAN) {
        const DistanceProblem p = sets.problem(kEuclidean);
        DistanceRows call{};
        call.set = p.b;
        call.rows = sets.columns;
        call.dims = sets.dims;
        call.centre = centre.data();
        simt::launch(order, dim3(unsigned(divide_up(sets.dims, 32))), dim3(kDistanceThreads), 0,
                     distance_centre<float>, call);
        call.centred = rows_b.data();
        call.squares = squares_b.data();
        simt::launch(order, dim3(unsigned(divide_up(sets.columns, kDistanceWarps))),
                     dim3(kDistanceThreads), 0, distance_rows<float>, call);
        call.set = p.a;
        call.rows = sets.rows;
        call.centred = rows_a.data();
        call.squares = squares_a.data();
        simt::launch(order, dim3(unsigned(divide_up(sets.rows, kDistanceWarps))),
                     dim3(kDistanceThreads), 0, distance_rows<float>, call);
        for (long long i = 0; i < sets.rows; ++i)
            for (long long j = 0; j < sets.columns; ++j) {
                float sum = 0;
                for (long long k = 0; k < sets.dims; ++k)
                    sum += rows_a[size_t(i * sets.dims + k)] * rows_b[size_t(j * sets.dims + k)];
                values.push_back(sum);
            }
    }
};

void check_matrix(const Sets& sets, const std::vector<float>& found, int metric,
                  const std::string& what) {
    bool right = true;
    for (long long i = 0; i < sets.rows; ++i)
        for (long long j = 0; j < sets.columns; ++j) {
            const double squared = sets.squared(i, j, metric);
            right &= close(found[size_t(i * sets.columns + j)],
                           metric == kEuclidean ? std::sqrt(squared) : squared);
        }
    check(right, what);
}

void check_tiles(const Sets& sets, simt::Order order) {
    std::vector<float> found(size_t(sets.rows * sets.columns), NAN);
    const unsigned tiles = unsigned(divide_up(sets.rows, kTile) * divide_up(sets.columns, kTile));
    for (const int metric : {kEuclidean, kCosine}) {
        DistanceForward call{};
        call.problem = sets.problem(metric);
        call.rows = sets.rows;
        call.columns = sets.columns;
        call.distances = found.data();
        call.row_stride = sets.columns;
        simt::launch(order, dim3(tiles), dim3(kDistanceThreads), 0, cdist_direct<float, false>,
                     call);
        check_matrix(sets, found, metric, "direct");
    }
    const Products products(sets, order);
    for (const double near : {0.02, 0.9}) {  // few suspects, then more than are computed one by one
        std::fill(found.begin(), found.end(), NAN);
        DistanceForward call{};
        call.problem = sets.problem(kEuclidean);
        call.rows = sets.rows;
        call.columns = sets.columns;
        call.distances = found.data();
        call.row_stride = sets.columns;
        call.products = products.values.data();
        call.squares_a = products.squares_a.data();
        call.squares_b = products.squares_b.data();
        call.near = near;
        simt::launch(order, dim3(tiles), dim3(kDistanceThreads), 0, cdist_finish<float, false>,
                     call);
        check_matrix(sets, found, kEuclidean, "from products");
    }
}

void check_neighbours(const Sets& sets, simt::Order order) {
    const long long k = 33;
    const int splits = 2;
    const Products products(sets, order);
    std::vector<float> lists(size_t(sets.rows * splits * k), NAN),
        distances(size_t(sets.rows * k), NAN);
    std::vector<long long> list_indices(lists.size(), -1), indices(distances.size(), -1);
    NeighbourSearch call{};
    call.problem = sets.problem(kEuclidean);
    call.rows = sets.rows;
    call.squares_a = products.squares_a.data();
    call.relative = call.absolute = 1e-4;
    call.k = k;
    call.splits = splits;
    call.distances = lists.data();
    call.indices = list_indices.data();
    const size_t shared = 2 * size_t(k) * (sizeof(float) + sizeof(long long));
    for (const long long first : {0LL, sets.columns / 2}) {
        call.first_column = first;
        call.columns = first ? sets.columns - first : sets.columns / 2;
        std::vector<float> values;
        for (long long i = 0; i < sets.rows; ++i)
            for (long long j = 0; j < call.columns; ++j)
                values.push_back(products.values[size_t(i * sets.columns + first + j)]);
        call.values = values.data();
        call.squares_b = products.squares_b.data() + first;
        call.is_first = first == 0;
        simt::launch(order, dim3(unsigned(divide_up(sets.rows * splits, 2))), dim3(64), shared,
                     knn_search<float>, call);
    }
    simt::launch(order, dim3(unsigned(divide_up(sets.rows, 2))), dim3(64), shared, knn_merge<float>,
                 NeighbourMerge{call, distances.data(), indices.data()});
    for (long long i = 0; i < sets.rows; ++i) {
        std::vector<std::pair<double, long long>> all;
        for (long long j = 0; j < sets.columns; ++j)
            all.push_back({sets.squared(i, j, kEuclidean), j});
        std::sort(all.begin(), all.end());
        bool right = true;
        for (long long n = 0; n < k; ++n)
            right &= indices[size_t(i * k + n)] == all[size_t(n)].second &&
                     close(distances[size_t(i * k + n)], std::sqrt(all[size_t(n)].first));
        check(right, "neighbours of row " + std::to_string(i));
    }
}

void finish(const Sets& sets, int metric, const std::vector<double>& partials, int splits,
            std::vector<float>& gradient, simt::Order order) {
    gradient.assign(sets.a.size(), NAN);
    DistanceGradient call{};
    call.problem = sets.problem(metric);
    call.partials = partials.data();
    call.splits = splits;
    call.gradient = gradient.data();
    call.row_stride = sets.dims;
    call.step = 1;
    call.dtype = kFloat32;
    simt::launch(order, dim3(unsigned(divide_up(sets.rows, kDistanceWarps))),
                 dim3(kDistanceThreads), 0, distance_gradient<double>, call);
}

// Of all pairs, then of those that an edge joins: each row with two columns.
void check_gradients(const Sets& sets, simt::Order order) {
    const size_t pairs = size_t(sets.rows * sets.columns);
    std::vector<float> upstream(pairs), distances(pairs), gradient;
    for (size_t i = 0; i < pairs; ++i) {
        upstream[i] = float(i % 5) - 1.0f;
        distances[i] = float(std::sqrt(sets.squared((long long)(i) / sets.columns,
                                                    (long long)(i) % sets.columns, kEuclidean)));
    }
    const int splits = 2;
    std::vector<double> partials(size_t(splits) * sets.a.size(), NAN);
    DistanceBackward call{};
    call.problem = sets.problem(kEuclidean);
    call.upstream = {upstream.data(), 0, sets.columns, 1, kFloat32};
    call.distances = {distances.data(), 0, sets.columns, 1, kFloat32};
    call.splits = splits;
    call.share = kPartnersPerSum;
    call.partials = partials.data();
    const long long tiles =
        divide_up(sets.rows, kGradientTile) * divide_up(sets.dims, kGradientTile);
    simt::launch(order, dim3(unsigned(tiles * splits)), dim3(kDistanceThreads), 0,
                 cdist_backward<float>, call);
    finish(sets, kEuclidean, partials, splits, gradient, order);

    std::vector<long long> indices;
    for (long long i = 0; i < sets.rows; ++i)
        for (long long j : {i % sets.columns, (i + 5) % sets.columns}) indices.push_back(j);
    NeighbourBackward edges{};
    edges.problem = sets.problem(kSquaredEuclidean);
    edges.k = 2;
    edges.indices = indices.data();
    edges.upstream = {upstream.data(), 0, 2, 1, kFloat32};
    edges.distances = {distances.data(), 0, 2, 1, kFloat32};
    std::vector<double> sums(sets.a.size(), NAN);
    edges.sums = sums.data();
    simt::launch(order, dim3(unsigned(divide_up(sets.rows, kDistanceWarps))),
                 dim3(kDistanceThreads), 0, knn_backward<double>, edges);
    bool right = true, right_edges = true;
    for (long long i = 0; i < sets.rows; ++i)
        for (long long k = 0; k < sets.dims; ++k) {
            double sum = 0, terms = 0, of_edges = 0;
            for (long long j = 0; j < sets.columns; ++j) {
                const size_t at = size_t(i * sets.columns + j);
                const double d =
                    double(sets.a[size_t(i * sets.dims + k)]) - sets.b[size_t(j * sets.dims + k)];
                const double term = distances[at] == 0 ? 0 : upstream[at] / distances[at] * d;
                sum += term;
                terms += std::fabs(term);
            }
            for (long long e = 2 * i; e < 2 * i + 2; ++e)
                of_edges += 2 * double(upstream[size_t(e)]) *
                            (double(sets.a[size_t(i * sets.dims + k)]) -
                             sets.b[size_t(indices[size_t(e)] * sets.dims + k)]);
            right &= std::fabs(gradient[size_t(i * sets.dims + k)] - sum) <= 1e-6 * terms;
            right_edges &= std::fabs(sums[size_t(i * sets.dims + k)] - of_edges) <= 1e-12;
        }
    check(right, "gradient of all pairs");
    check(right_edges, "gradient of edges");
}

}  // namespace

int main() {
    const Sets sets(66, 134, 18, 1000.0f), small(7, 90, 33, 3.0f);
    for (const simt::Order order : {simt::Order::forward, simt::Order::reverse}) {
        check_tiles(sets, order);
        check_neighbours(small, order);
        check_gradients(sets, order);
    }
    std::printf("%d failed\n", g_failures);
    return g_failures != 0;
}
