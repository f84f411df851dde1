// SPDX-License-Identifier: Apache-2.0
//
// Tasks on threads: each runs once, whoever calls, however many threads, after errors and forks.
// Built once more with the thread sanitizer, which sees a race whatever the order was.
//
// Usage: test_parallel [no-fork], where a child may not start threads: under that sanitizer, and in
// an emulator of another processor.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/cpu/parallel.hpp"

namespace {

int g_failures = 0;

void check(bool condition, const std::string& what) {
    if (condition) return;
    std::printf("FAILED: %s\n", what.c_str());
    ++g_failures;
}

// Counts how often each task ran, on which threads, and fills all of its scratch memory.
struct Census {
    size_t scratch_bytes;
    std::vector<int> runs;  // plain memory: only one thread may touch each place
    std::mutex mutex;
    std::set<std::thread::id> threads;
    bool scratch_is_good = true;

    Census(int64_t tasks, size_t scratch_bytes)
        : scratch_bytes(scratch_bytes), runs(size_t(tasks), 0) {}

    static void body(void* context, int64_t task, void* scratch) {
        Census& census = *static_cast<Census*>(context);
        ++census.runs[size_t(task)];
        if (census.scratch_bytes > 0) std::memset(scratch, int(task), census.scratch_bytes);
        const std::lock_guard<std::mutex> lock(census.mutex);
        census.threads.insert(std::this_thread::get_id());
        census.scratch_is_good &= reinterpret_cast<uintptr_t>(scratch) % 64 == 0;
    }
    bool complete() const {
        for (const int count : runs)
            if (count != 1) return false;
        return scratch_is_good;
    }
};

bool run_census(int64_t tasks, int threads, size_t scratch_bytes) {
    Census census(tasks, scratch_bytes);
    sosie::parallel_for(tasks, threads, scratch_bytes, &Census::body, &census);
    return census.complete() && census.threads.size() <= size_t(threads);
}

void test_each_task_once() {
    for (const int64_t tasks : {0, 1, 2, 7, 500})
        for (const int threads : {1, 2, 3, 8})
            for (const size_t scratch : {size_t(0), size_t(1), size_t(5000), size_t(100)})
                check(run_census(tasks, threads, scratch),
                      std::to_string(tasks) + " tasks on " + std::to_string(threads) + " threads");
}

void test_callers_at_once() {
    std::atomic<int> incomplete{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&incomplete, caller] {
            for (int i = 0; i < 50; ++i)
                if (!run_census(20 + caller, 1 + (caller + i) % 4, 64)) ++incomplete;
        });
    for (std::thread& caller : callers) caller.join();
    check(incomplete == 0, "calls from several threads at once");
}

void test_call_inside_a_task() {
    std::atomic<int> complete{0};
    sosie::parallel_for(
        6, 3, 0,
        [](void* context, int64_t, void*) {
            if (run_census(10, 2, 0)) ++*static_cast<std::atomic<int>*>(context);
        },
        &complete);
    check(complete == 6, "calls from inside tasks");
}

void test_error_in_a_task() {
    for (const int threads : {1, 3}) {
        std::string caught;
        try {
            sosie::parallel_for(
                100, threads, 0,
                [](void*, int64_t task, void*) {
                    if (task == 13) throw std::runtime_error("task 13");
                },
                nullptr);
        } catch (const std::runtime_error& error) {
            caught = error.what();
        }
        check(caught == "task 13", "an exception reaches the caller");
        check(run_census(50, threads, 0), "calls after an exception");
    }
}

std::atomic<int> g_team_calls{0};

void team(int threads, void (*member)(void* context), void* context) {
    ++g_team_calls;
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(member, context);
    member(context);
    for (std::thread& other : others) other.join();
}

bool g_fork = true;

// In a child that has none of its parent's threads; it dies by alarm if it waits for one.
void test_fork(const char* what) {
    if (!g_fork) return;
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        const int calls_before = g_team_calls;
        const bool good =
            run_census(50, 3, 100) && !sosie::has_team() && g_team_calls == calls_before;
        _exit(good ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, what);
    check(run_census(50, 3, 100), "calls after a fork");
}

void test_team() {
    sosie::use_team(&team);
    check(sosie::has_team() && run_census(50, 3, 100) && g_team_calls == 1,
          "a team runs the tasks");
    check(run_census(50, 1, 100) && g_team_calls == 1, "one thread needs no team");
    test_callers_at_once();
    test_error_in_a_task();
    test_fork("a child leaves its parent's team");
    check(sosie::has_team(), "the parent keeps its team");
    sosie::use_team(nullptr);
    check(!sosie::has_team() && run_census(50, 3, 100), "a team can be left");
}

}  // namespace

int main(int argc, char** argv) {
    g_fork = !(argc > 1 && std::string(argv[1]) == "no-fork");
    test_each_task_once();
    test_callers_at_once();
    test_call_inside_a_task();
    test_error_in_a_task();
    test_fork("a child starts threads of its own");
    test_team();
    std::printf("%s\n", g_failures == 0 ? "all good" : "failures");
    return g_failures == 0 ? 0 : 1;
}
