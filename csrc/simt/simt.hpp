// SPDX-License-Identifier: Apache-2.0
//
// CUDA kernels on a CPU, for tests: the sources of csrc/cuda compiled by a C++ compiler.
//
// Every CUDA thread is a fiber, every block has a thread of the operating system for itself while
// it runs. Fibers change only at barriers and in warp operations, in one of two orders. Three
// builds of the same program find three kinds of mistakes:
//
// - plain: wrong values; packs of elements at addresses that no device reads or writes at once;
//   threads of a block that wait at different barriers, or that left before one (barrier
//   divergence); warp operations that not all lanes of the mask reach; memory that is read before
//   it is written, as shared memory starts as NaN;
// - with the thread sanitizer: races. A fiber is a thread to it, and a switch between fibers orders
//   nothing: only barriers, `__syncwarp` and the acquire-release of tickets do. So a missing
//   barrier is reported even where this run's order gave the right values. Shuffles order no
//   memory, as in CUDA. Blocks are ordered against each other by tickets alone, also those that ran
//   in turn;
// - with the address sanitizer: accesses beyond arrays, shared memory too (it lies between poisoned
//   zones), and beyond a thread's stack.
//
// What this is not: a model of timing, of warps in lockstep, or of CUDA's rounding (no contraction
// to fused operations unless written so, and the host's math library).
#pragma once
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define SIMT_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIMT_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef SIMT_THREAD_SANITIZER
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
// The emulator's own state is no concern of the sanitizer: it would order or accuse what it must
// not.
#define SIMT_INTERNAL __attribute__((no_sanitize("thread"), noinline))
#else
#define SIMT_INTERNAL
#endif
#ifdef SIMT_ADDRESS_SANITIZER
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_poison_memory_region(const volatile void* address, size_t size);
void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
#endif

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
inline double2 make_double2(double x, double y) {
    return {x, y};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}

namespace simt {

// A kernel did what no CUDA kernel may.
class Fault : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// In which order threads of a block, and blocks of a grid, get their turns.
enum class Order { forward, reverse };

constexpr unsigned kWarp = 32;
// What a block may use on any device since compute capability 7.5 without asking for more, and what
// it can get from one of 9.0.
constexpr size_t kStaticSharedBytes = 48 << 10, kSharedBytes = 227 << 10;

namespace detail {

#ifdef SIMT_ADDRESS_SANITIZER
constexpr size_t kStackBytes = 512 << 10;
#else
constexpr size_t kStackBytes = 128 << 10;
#endif
constexpr size_t kPage = 4096, kUsableStack = kStackBytes - kPage;
constexpr size_t kRedZone = 256;  // before, between and behind pieces of shared memory

// Memory from the system. The thread sanitizer forgets about it when it is given back, so that
// blocks which have it in turn do not seem to share it.
class Memory {
  public:
    explicit Memory(size_t bytes) : bytes_(bytes) {
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<char*>(memory);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() {
        set_accessible(0, bytes_);
        munmap(data_, bytes_);
    }
    SIMT_INTERNAL char* data() const { return data_; }
    SIMT_INTERNAL size_t bytes() const { return bytes_; }
    SIMT_INTERNAL void fill_with_nan() {
        // A call of memset would be an access of this thread, to the thread sanitizer.
        volatile uint64_t* words = reinterpret_cast<uint64_t*>(data_);
        for (size_t i = 0; i < bytes_ / 8; ++i) words[i] = ~uint64_t(0);
    }
    SIMT_INTERNAL void set_accessible([[maybe_unused]] size_t begin,
                                      [[maybe_unused]] size_t bytes) {
#ifdef SIMT_ADDRESS_SANITIZER
        __asan_unpoison_memory_region(data_ + begin, bytes);
#endif
    }
    SIMT_INTERNAL void set_inaccessible() {
#ifdef SIMT_ADDRESS_SANITIZER
        __asan_poison_memory_region(data_, bytes_);
#endif
    }

  private:
    size_t bytes_;
    char* data_;
};

enum class Wait { none, block, warp, done };

struct Fiber {
    ucontext_t context;
    void* sanitizer = nullptr;   // its thread, for the thread sanitizer
    void* fake_stack = nullptr;  // of the address sanitizer
    const char* stack = nullptr;
    dim3 thread;
    unsigned linear = 0;
    Wait wait = Wait::none;
    const char* file = nullptr;  // of the barrier that it waits at
    int line = 0;
    unsigned mask = 0;  // of the lanes that its warp operation is to join
    uint64_t slot[2] = {};
};

// Where a block's fibers have their stacks, each above a page that may not be touched, and where
// its shared memory is.
struct Places {
    Memory fibers, stacks, shared;
    explicit Places(size_t threads)
        : fibers(threads * sizeof(Fiber)), stacks(threads * kStackBytes), shared(2 * kSharedBytes) {
        for (size_t i = 0; i < threads; ++i)
            mprotect(stacks.data() + i * kStackBytes, kPage, PROT_NONE);
    }
    char* stack(size_t i) const { return stacks.data() + i * kStackBytes + kPage; }
};

using Body = void (*)(const void* arguments);

struct Block {
    dim3 grid, size, index;
    Body body;
    const void* arguments;
    Fiber* fibers;  // (threads,)
    size_t threads;
    Fiber* current = nullptr;
    ucontext_t scheduler;
    void* scheduler_sanitizer = nullptr;
    void* scheduler_fake_stack = nullptr;
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_size = 0;
    // Shared memory: pieces are found by the address that stands for their type.
    const void* piece_types[8] = {};
    char* pieces[8] = {};
    int piece_count = 0;
    Memory* shared = nullptr;
    size_t shared_used = 0, static_used = 0;
    char* dynamic = nullptr;
    char barrier = 0;  // their addresses stand for orderings
    char warp_barriers[kWarp] = {};
    char* end = nullptr;
    std::string fault;
};

inline thread_local Block* t_block = nullptr;

SIMT_INTERNAL inline Fiber& current() {
    return *t_block->current;
}

SIMT_INTERNAL inline void to_scheduler([[maybe_unused]] bool for_good) {
    Block& block = *t_block;
    Fiber& me = *block.current;
#ifdef SIMT_THREAD_SANITIZER
    __tsan_switch_to_fiber(block.scheduler_sanitizer, 1);
#endif
#ifdef SIMT_ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(for_good ? nullptr : &me.fake_stack, block.scheduler_stack,
                                   block.scheduler_stack_size);
#endif
    swapcontext(&me.context, &block.scheduler);
#ifdef SIMT_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(me.fake_stack, nullptr, nullptr);
#endif
}

SIMT_INTERNAL inline void to_fiber(Block& block, Fiber& fiber) {
    block.current = &fiber;
#ifdef SIMT_ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(&block.scheduler_fake_stack, fiber.stack, kUsableStack);
#endif
#ifdef SIMT_THREAD_SANITIZER
    __tsan_switch_to_fiber(fiber.sanitizer, 1);
#endif
    swapcontext(&block.scheduler, &fiber.context);
#ifdef SIMT_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(block.scheduler_fake_stack, nullptr, nullptr);
#endif
}

SIMT_INTERNAL inline void enter() {
#ifdef SIMT_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(nullptr, &t_block->scheduler_stack,
                                    &t_block->scheduler_stack_size);
#endif
    t_block->body(t_block->arguments);
#ifdef SIMT_THREAD_SANITIZER
    __tsan_release(t_block->end);
#endif
    current().wait = Wait::done;
    to_scheduler(true);
}

SIMT_INTERNAL inline void wait_for_block(const char* file, int line) {
    Fiber& me = current();
    me.file = file;
    me.line = line;
    me.wait = Wait::block;
#ifdef SIMT_THREAD_SANITIZER
    __tsan_release(&t_block->barrier);
#endif
    to_scheduler(false);
#ifdef SIMT_THREAD_SANITIZER
    __tsan_acquire(&t_block->barrier);
#endif
}

SIMT_INTERNAL inline void wait_for_warp(unsigned mask, const char* file, int line) {
    Fiber& me = current();
    me.file = file;
    me.line = line;
    me.mask = mask;
    me.wait = Wait::warp;
    to_scheduler(false);
}

// `__syncwarp`, which orders memory among its lanes.
SIMT_INTERNAL inline void sync_warp(unsigned mask, const char* file, int line) {
#ifdef SIMT_THREAD_SANITIZER
    char* barrier = &t_block->warp_barriers[current().linear / kWarp];
    __tsan_release(barrier);
#endif
    wait_for_warp(mask, file, line);
#ifdef SIMT_THREAD_SANITIZER
    __tsan_acquire(barrier);
#endif
}

struct Place {
    const char* file;
    int line;
    void sync_warp(unsigned mask = ~0u) const { detail::sync_warp(mask, file, line); }
};

SIMT_INTERNAL inline void record_fault(Block& block, const std::string& what) {
    if (!block.fault.empty()) return;
    block.fault = "block (" + std::to_string(block.index.x) + ", " + std::to_string(block.index.y) +
                  ", " + std::to_string(block.index.z) + "): " + what;
}

SIMT_INTERNAL inline std::string place(const Fiber& fiber) {
    const char* name = std::strrchr(fiber.file, '/');
    return std::string(name ? name + 1 : fiber.file) + ":" + std::to_string(fiber.line);
}

// Lets a warp go on whose lanes have all reached one warp operation.
SIMT_INTERNAL inline bool release_warp(Block& block, size_t first) {
    const size_t end = std::min(first + kWarp, block.threads);
    unsigned waiting = 0, mask = 0;
    for (size_t i = first; i < end; ++i)
        if (block.fibers[i].wait == Wait::warp) {
            waiting |= 1u << (i - first);
            mask |= block.fibers[i].mask;
        }
    const unsigned present = end - first == kWarp ? ~0u : (1u << (end - first)) - 1;
    if (waiting == 0 || waiting != (mask & present)) return false;
    const Fiber* leader = nullptr;
    for (size_t i = first; i < end; ++i) {
        Fiber& fiber = block.fibers[i];
        if (fiber.wait != Wait::warp) continue;
        if (leader && (leader->line != fiber.line || leader->mask != fiber.mask))
            record_fault(block, "lanes of a warp at different operations, " + place(*leader) +
                                    " and " + place(fiber));
        leader = &fiber;
    }
    for (size_t i = first; i < end; ++i)
        if (block.fibers[i].wait == Wait::warp) block.fibers[i].wait = Wait::none;
    return true;
}

// Lets a block go on whose threads all wait at its barrier.
SIMT_INTERNAL inline bool release_block(Block& block) {
    size_t waiting = 0, left = 0;
    const Fiber* leader = nullptr;
    for (size_t i = 0; i < block.threads; ++i) {
        const Fiber& fiber = block.fibers[i];
        left += fiber.wait == Wait::done;
        if (fiber.wait != Wait::block) continue;
        ++waiting;
        if (leader && (leader->line != fiber.line || leader->file != fiber.file))
            record_fault(block, "threads wait at different barriers, " + place(*leader) + " and " +
                                    place(fiber));
        leader = &fiber;
    }
    if (waiting == 0 || waiting + left != block.threads) return false;
    if (left > 0)
        record_fault(block, std::to_string(left) + " of " + std::to_string(block.threads) +
                                " threads returned before the barrier at " + place(*leader));
    for (size_t i = 0; i < block.threads; ++i)
        if (block.fibers[i].wait == Wait::block) block.fibers[i].wait = Wait::none;
    return true;
}

SIMT_INTERNAL inline void run_fibers(Block& block, Order order) {
    const size_t count = block.threads;
    size_t left = count;
    while (left > 0) {
        bool moved = false;
        for (size_t turn = 0; turn < count; ++turn) {
            Fiber& fiber = block.fibers[order == Order::forward ? turn : count - 1 - turn];
            if (fiber.wait != Wait::none) continue;
            to_fiber(block, fiber);
            left -= fiber.wait == Wait::done;
            moved = true;
        }
        for (size_t first = 0; first < count; first += kWarp) moved |= release_warp(block, first);
        moved |= release_block(block);
        if (!moved && left > 0) {
            const Fiber* stuck = nullptr;
            for (size_t i = 0; i < count; ++i)
                if (block.fibers[i].wait != Wait::done) stuck = &block.fibers[i];
            record_fault(block, "not all threads that are waited for reach " + place(*stuck));
        }
        if (!block.fault.empty()) return;
    }
}

// What all blocks of one grid share.
struct Grid {
    dim3 grid, size;
    size_t dynamic_bytes;
    Order order;
    Body body;
    const void* arguments;
    size_t blocks, workers;
    char end = 0;
    std::mutex mutex;
    std::string fault;
};

SIMT_INTERNAL inline dim3 unravel(size_t linear, dim3 size) {
    return {unsigned(linear % size.x), unsigned(linear / size.x % size.y),
            unsigned(linear / size.x / size.y)};
}

SIMT_INTERNAL inline void start(Fiber& fiber, size_t i, dim3 size, char* stack) {
    fiber.linear = unsigned(i);
    fiber.thread = unravel(i, size);
    fiber.stack = stack;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = kUsableStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
#ifdef SIMT_THREAD_SANITIZER
    fiber.sanitizer = __tsan_create_fiber(0);
#endif
}

SIMT_INTERNAL inline char* take_shared(Block& block, size_t bytes, size_t alignment) {
    const size_t step = std::max<size_t>(alignment, 128);
    const size_t begin = (block.shared_used + kRedZone + step - 1) / step * step;
    block.shared_used = begin + bytes;
    if (block.shared_used + kRedZone > block.shared->bytes()) {
        std::fprintf(stderr, "simt: more shared memory than any device has\n");
        std::abort();
    }
    block.shared->set_accessible(begin, bytes);
    return block.shared->data() + begin;
}

SIMT_INTERNAL inline void run_block(Grid& grid, size_t linear, Places& places) {
    Block block;
    block.grid = grid.grid;
    block.size = grid.size;
    block.index = unravel(linear, grid.grid);
    block.body = grid.body;
    block.arguments = grid.arguments;
    block.end = &grid.end;
    places.stacks.set_accessible(0, places.stacks.bytes());  // fibers never left their frames
    places.shared.set_accessible(0, places.shared.bytes());
    places.shared.fill_with_nan();
    places.shared.set_inaccessible();
    block.shared = &places.shared;
    block.dynamic = take_shared(block, grid.dynamic_bytes, 128);
    block.threads = size_t(grid.size.x) * grid.size.y * grid.size.z;
    block.fibers = new (places.fibers.data()) Fiber[block.threads];
#ifdef SIMT_THREAD_SANITIZER
    block.scheduler_sanitizer = __tsan_get_current_fiber();
#endif
    for (size_t i = 0; i < block.threads; ++i)
        start(block.fibers[i], i, grid.size, places.stack(i));
    t_block = &block;
    run_fibers(block, grid.order);
    t_block = nullptr;
#ifdef SIMT_THREAD_SANITIZER
    for (size_t i = 0; i < block.threads; ++i) __tsan_destroy_fiber(block.fibers[i].sanitizer);
#endif
    if (block.fault.empty()) return;
    const std::lock_guard<std::mutex> lock(grid.mutex);
    if (grid.fault.empty()) grid.fault = block.fault;
}

SIMT_INTERNAL inline void run_worker(Grid& grid, size_t worker) {
    const size_t threads = size_t(grid.size.x) * grid.size.y * grid.size.z;
    std::unique_ptr<Places> places;
    for (size_t turn = worker; turn < grid.blocks; turn += grid.workers) {
#ifdef SIMT_THREAD_SANITIZER
        places.reset();
#endif
        if (!places) places = std::make_unique<Places>(threads);
        run_block(grid, grid.order == Order::forward ? turn : grid.blocks - 1 - turn, *places);
    }
}

inline void run_grid(Grid& grid) {
    grid.blocks = size_t(grid.grid.x) * grid.grid.y * grid.grid.z;
    const size_t threads = size_t(grid.size.x) * grid.size.y * grid.size.z;
    if (grid.blocks == 0 || threads == 0 || threads > 1024 || grid.grid.y > 65535 ||
        grid.grid.z > 65535 || grid.dynamic_bytes > kSharedBytes)
        throw Fault("a launch that no device accepts: " + std::to_string(grid.blocks) +
                    " blocks (y " + std::to_string(grid.grid.y) + ", z " +
                    std::to_string(grid.grid.z) + ") of " + std::to_string(threads) +
                    " threads with " + std::to_string(grid.dynamic_bytes) +
                    " bytes of dynamic shared memory");
    grid.workers = std::min<size_t>(grid.blocks, 2);
    std::vector<std::thread> workers;
    for (size_t i = 0; i < grid.workers; ++i)
        workers.emplace_back([&grid, i] { run_worker(grid, i); });
    for (std::thread& worker : workers) worker.join();
#ifdef SIMT_THREAD_SANITIZER
    __tsan_acquire(&grid.end);
#endif
    if (!grid.fault.empty()) throw Fault(grid.fault);
}

template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
    static void run(const void* call) {
        const Call& me = *static_cast<const Call*>(call);
        std::apply(me.kernel, me.arguments);
    }
};

// Two words that all lanes of a warp put out for each other.
template <class T>
SIMT_INTERNAL inline void put(const T& value) {
    static_assert(sizeof(T) <= sizeof(Fiber::slot));
    __builtin_memcpy(current().slot, &value, sizeof(T));
}
template <class T>
SIMT_INTERNAL inline T taken(unsigned lane) {
    const size_t at = current().linear / kWarp * kWarp + lane;
    T value;
    __builtin_memcpy(&value, t_block->fibers[std::min(at, t_block->threads - 1)].slot, sizeof(T));
    return value;
}
SIMT_INTERNAL inline unsigned lane() {
    return current().linear % kWarp;
}

// All lanes of the mask give a value, and each takes that of lane from(its own).
template <class T, class From>
inline T exchange(unsigned mask, const T& value, From from, const char* file, int line) {
    put(value);
    wait_for_warp(mask, file, line);
    const T result = taken<T>(from(lane()));
    wait_for_warp(mask, file, line);  // nobody overwrites what others have yet to take
    return result;
}

inline unsigned ballot(unsigned mask, bool predicate, const char* file, int line) {
    put<unsigned>(predicate);
    wait_for_warp(mask, file, line);
    unsigned result = 0;
    for (unsigned i = 0; i < kWarp; ++i)
        if ((mask >> i & 1) && taken<unsigned>(i)) result |= 1u << i;
    wait_for_warp(mask, file, line);
    return result;
}

SIMT_INTERNAL inline dim3 thread_index() {
    return current().thread;
}
SIMT_INTERNAL inline dim3 block_index() {
    return t_block->index;
}
SIMT_INTERNAL inline dim3 block_size() {
    return t_block->size;
}
SIMT_INTERNAL inline dim3 grid_size() {
    return t_block->grid;
}

// What is added up past the static limit faults at once, as ptxas would.
SIMT_INTERNAL inline char* static_shared(const void* type, size_t bytes, size_t alignment) {
    Block& block = *t_block;
    for (int i = 0; i < block.piece_count; ++i)
        if (block.piece_types[i] == type) return block.pieces[i];
    block.static_used += bytes;
    if (block.static_used > kStaticSharedBytes)
        record_fault(block, "static shared memory of " + std::to_string(block.static_used) +
                                " bytes, above " + std::to_string(kStaticSharedBytes));
    if (block.piece_count == 8) std::abort();
    block.piece_types[block.piece_count] = type;
    return block.pieces[block.piece_count++] = take_shared(block, bytes, alignment);
}

SIMT_INTERNAL inline char* dynamic_shared() {
    return t_block->dynamic;
}

template <class T>
inline constexpr char kTypeTag = 0;

}  // namespace detail

// Runs a grid to its end. Throws Fault.
template <class... Parameters, class... Arguments>
void launch(Order order, dim3 grid, dim3 block, size_t dynamic_bytes, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
    const detail::Call<std::decay_t<Parameters>...> call{kernel,
                                                         {std::forward<Arguments>(arguments)...}};
    detail::Grid state{};
    state.grid = grid;
    state.size = block;
    state.dynamic_bytes = dynamic_bytes;
    state.order = order;
    state.body = &detail::Call<std::decay_t<Parameters>...>::run;
    state.arguments = &call;
    detail::run_grid(state);
}

// One object for all threads of a block, as a `__shared__` variable would be; all bytes 0xff at
// first, which is NaN to every floating type.
template <class T>
T& shared_memory() {
    static_assert(std::is_trivially_default_constructible_v<T>);
    return *reinterpret_cast<T*>(
        detail::static_shared(&detail::kTypeTag<T>, sizeof(T), alignof(T)));
}

// Whether an instruction can read or write so many bytes at an address; a fault if not.
SIMT_INTERNAL inline bool is_aligned(const void* address, size_t bytes) {
    const bool fits = reinterpret_cast<uintptr_t>(address) % bytes == 0;
    if (!fits)
        detail::record_fault(*detail::t_block, "an access of " + std::to_string(bytes) +
                                                   " bytes to an address that they do not divide");
    return fits;
}

// The memory that the launch gives to each block, as `extern __shared__` would be.
template <class T>
T* dynamic_shared_memory() {
    static_assert(std::is_trivially_default_constructible_v<T>);
    return reinterpret_cast<T*>(detail::dynamic_shared());
}

}  // namespace simt

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx simt::detail::thread_index()
#define blockIdx simt::detail::block_index()
#define blockDim simt::detail::block_size()
#define gridDim simt::detail::grid_size()
#define __syncthreads() simt::detail::wait_for_block(__FILE__, __LINE__)
#define __syncwarp(...) simt::detail::Place{__FILE__, __LINE__}.sync_warp(__VA_ARGS__)
#define __shfl_sync(mask, value, source) \
    simt::detail::exchange(              \
        mask, value, [&](unsigned) { return unsigned(source) % 32; }, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
    simt::detail::exchange(                \
        mask, value, [&](unsigned lane) { return lane ^ unsigned(bits); }, __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, delta)                                                     \
    simt::detail::exchange(                                                                      \
        mask, value, [&](unsigned lane) { return lane + (delta) < 32 ? lane + (delta) : lane; }, \
        __FILE__, __LINE__)
#define __shfl_up_sync(mask, value, delta)                                                   \
    simt::detail::exchange(                                                                  \
        mask, value, [&](unsigned lane) { return lane >= (delta) ? lane - (delta) : lane; }, \
        __FILE__, __LINE__)
#define __ballot_sync(mask, predicate) \
    simt::detail::ballot(mask, bool(predicate), __FILE__, __LINE__)
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, !(predicate)) == 0)

inline int __ffs(int bits) {
    return __builtin_ffs(bits);
}
inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
template <class T>
inline T __ldg(const T* address) {
    return *address;
}
template <class T>
inline std::enable_if_t<std::is_integral_v<T>, T> atomicAdd(T* address, T value) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <class T>
inline std::enable_if_t<std::is_integral_v<T>, T> atomicMax(T* address, T value) {
    T seen = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (seen < value && !__atomic_compare_exchange_n(address, &seen, value, true,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return seen;
}
