// SPDX-License-Identifier: Apache-2.0
#include "parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

namespace sosie {
namespace {

// Scratch of a thread: kept between calls, so that a training loop touches no fresh page.
class Scratch {
  public:
    ~Scratch() { std::free(memory_); }
    void* at_least(size_t bytes) {
        if (bytes > bytes_) {
            std::free(memory_);
            bytes_ = 0;
            constexpr size_t page = 4096;
            const size_t rounded = (bytes + page - 1) / page * page;
            memory_ = std::aligned_alloc(page, rounded);
            if (memory_ == nullptr) throw std::bad_alloc();
            bytes_ = rounded;
        }
        return memory_;
    }

  private:
    void* memory_ = nullptr;
    size_t bytes_ = 0;
};

// Tells the core that this is a loop that waits.
inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits for `ready` without sleeping, for as long as a thread takes to wake up a few times over:
// where one call follows another, sleeping between them would cost more than a small image does.
template <class Ready>
void spin_until(Ready ready) {
    using Clock = std::chrono::steady_clock;
    constexpr auto patience = std::chrono::microseconds(200);
    for (const auto start = Clock::now(); Clock::now() - start < patience;)
        for (int i = 0; i < 32; ++i) {
            if (ready()) return;
            relax();
        }
}

// One call of parallel_for: tasks are taken from a counter until none is left.
struct Job {
    int64_t tasks;
    size_t scratch_bytes;
    TaskBody body;
    void* context;
    std::atomic<int64_t> next{0};
    std::mutex failure_mutex;
    std::exception_ptr failure;
    int places = 0;              // helpers that may still join, guarded by the pool's mutex
    std::atomic<int> inside{0};  // helpers at work, changed under the pool's mutex
    Job* following = nullptr;

    Job(int64_t tasks, size_t scratch_bytes, TaskBody body, void* context)
        : tasks(tasks), scratch_bytes(scratch_bytes), body(body), context(context) {}

    void work() {
        static thread_local Scratch scratch;
        try {
            void* memory = scratch.at_least(scratch_bytes);
            for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
                body(context, task, memory);
        } catch (...) {
            next.store(tasks, std::memory_order_relaxed);
            const std::lock_guard<std::mutex> lock(failure_mutex);
            failure = std::current_exception();
        }
    }
    void rethrow() const {
        if (failure) std::rethrow_exception(failure);
    }
};

// Threads that look for a job for a moment, then sleep until there is one. Never destroyed: they
// may outlive main().
class Pool {
  public:
    void run(Job& job, int helpers) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
            job.places = helpers;
            job.following = first_;
            first_ = &job;
            waiting_.store(true, std::memory_order_release);
        }
        for (int i = 0; i < helpers; ++i) wake_.notify_one();
        job.work();
        std::unique_lock<std::mutex> lock(mutex_);
        remove(job);
        lock.unlock();
        spin_until([&] { return job.inside.load(std::memory_order_acquire) == 0; });
        lock.lock();
        done_.wait(lock, [&] { return job.inside == 0; });
    }

  private:
    void serve() {
        for (;;) {
            spin_until([&] { return waiting_.load(std::memory_order_acquire); });
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return first_ != nullptr; });
            Job& job = *first_;
            ++job.inside;
            if (--job.places == 0) remove(job);
            lock.unlock();
            job.work();
            lock.lock();
            if (--job.inside == 0) done_.notify_all();
        }
    }
    void remove(Job& job) {
        for (Job** link = &first_; *link; link = &(*link)->following)
            if (*link == &job) {
                *link = job.following;
                break;
            }
        waiting_.store(first_ != nullptr, std::memory_order_release);
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    Job* first_ = nullptr;
    std::atomic<bool> waiting_{
        false};  // whether first_ is there, for those who look without the lock
    int threads_ = 0;
};

std::mutex g_mutex;
Pool* g_pool = nullptr;
std::atomic<Team> g_team{nullptr};

// A child has none of its parent's threads, and its locks are in whatever state they were in.
void forget_threads() {
    new (&g_mutex) std::mutex;
    g_pool = nullptr;
    g_team.store(nullptr);
}

void watch_forks() {
    static const int registered = pthread_atfork(nullptr, nullptr, &forget_threads);
    (void)registered;
}

Pool& pool() {
    watch_forks();
    const std::lock_guard<std::mutex> lock(g_mutex);
    if (g_pool == nullptr) g_pool = new Pool;
    return *g_pool;
}

}  // namespace

void parallel_for(int64_t tasks, int threads, size_t scratch_bytes, TaskBody body, void* context) {
    Job job(tasks, scratch_bytes, body, context);
    const int wanted = int(std::min<int64_t>(threads, tasks));
    if (wanted <= 1) {
        job.work();
    } else if (const Team team = g_team.load()) {
        team(wanted, [](void* shared) { static_cast<Job*>(shared)->work(); }, &job);
    } else {
        pool().run(job, wanted - 1);
    }
    job.rethrow();
}

void use_team(Team team) {
    watch_forks();
    g_team.store(team);
}

bool has_team() {
    return g_team.load() != nullptr;
}

}  // namespace sosie
