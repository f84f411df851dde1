// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include "launch.hpp"
#include "tables.hpp"

namespace sosie {
namespace {

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string explain(cudaError_t status, int device) {
    switch (status) {
        case cudaErrorInsufficientDriver: {
            int driver = 0;
            cudaDriverGetVersion(&driver);
            if (driver == 0) return "no NVIDIA driver is installed";
            return "the NVIDIA driver serves CUDA " + version_text(driver) +
                   ", this build needs CUDA " + version_text(CUDART_VERSION / 1000 * 1000) +
                   ": install a newer driver, or build with an older toolkit";
        }
        case cudaErrorNoDevice: return "no CUDA device was found";
        case cudaErrorNoKernelImageForDevice: {
            int major = 0, minor = 0;
            cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
            cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
            return "the device has compute capability " + std::to_string(major) + "." +
                   std::to_string(minor) + ", this build has kernels for " + built_for() +
                   ": build with -C cmake.define.SOSIE_CUDA_ARCHITECTURES=" +
                   std::to_string(10 * major + minor) +
                   ", or let CuPy compile them: sosie.use_backend(\"cupy\")";
        }
        default: return cudaGetErrorString(status);
    }
}

void check(cudaError_t status, const char* what, int device) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // reported here: the next call does not report it again
    throw std::runtime_error("CUDA could not run " + std::string(what) + " on device " +
                             std::to_string(device) + ": " + explain(status, device));
}

class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_), "anything", device);
        if (previous_ != device) check(cudaSetDevice(device), "anything", device);
        changed_ = previous_ != device;
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(previous_);
    }

  private:
    int previous_ = 0;
    bool changed_ = false;
};

const Kernel& kernel_of(const Launch& call) {
    const Kernel* kernel = find_kernel(call.kernel);
    if (!kernel)
        throw std::invalid_argument("this build has no kernel " + std::string(call.kernel));
    if (kernel->parameter_bytes != call.parameter_bytes)
        throw std::invalid_argument(
            std::string(call.kernel) + " takes " + std::to_string(kernel->parameter_bytes) +
            " bytes of parameters, got " + std::to_string(call.parameter_bytes));
    return *kernel;
}

// Less than what every block may have without asking, which is 48 KiB together with the kernel's
// own variables.
constexpr size_t kSharedBytes = 40 << 10;

// Lets blocks of a kernel have all that its own variables leave: as much for everybody, since
// another thread may launch the same kernel with another size between this call and the launch.
void allow_shared_bytes(const Kernel& kernel, const Launch& call) {
    cudaFuncAttributes own;
    check(cudaFuncGetAttributes(&own, kernel.function), call.kernel, call.device);
    const size_t most = most_shared_bytes(call.device) - own.sharedSizeBytes;
    if (call.shared_bytes > most)
        throw std::invalid_argument("expected at most " + std::to_string(most) +
                                    " bytes of shared memory for " + call.kernel + " on device " +
                                    std::to_string(call.device) + ", got " +
                                    std::to_string(call.shared_bytes));
    if (size_t(own.maxDynamicSharedSizeBytes) < most)
        check(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   int(most)),
              call.kernel, call.device);
}

}  // namespace

void launch(const Launch& call) {
    const Kernel& kernel = kernel_of(call);
    const DeviceGuard guard(call.device);
    const auto stream = reinterpret_cast<cudaStream_t>(call.stream);
    if (call.clear_bytes > 0)
        check(cudaMemsetAsync(reinterpret_cast<void*>(call.clear), 0, call.clear_bytes, stream),
              call.kernel, call.device);
    if (call.shared_bytes > kSharedBytes) allow_shared_bytes(kernel, call);
    void* arguments[] = {const_cast<void*>(call.parameters)};
    const dim3 grid(call.grid[0], call.grid[1], call.grid[2]);
    const dim3 block(call.block[0], call.block[1], call.block[2]);
    check(cudaLaunchKernel(kernel.function, grid, block, arguments, call.shared_bytes, stream),
          call.kernel, call.device);
}

int device_count() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : (cudaGetLastError(), 0);
}

std::string unusable_reason() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess) return count > 0 ? "" : "no CUDA device was found";
    cudaGetLastError();
    return explain(status, 0);
}

int multiprocessors(int device) {
    int count = 0;
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "a query",
          device);
    return count;
}

size_t most_shared_bytes(int device) {
    int bytes = 0;
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "a query", device);
    return size_t(bytes);
}

std::string built_for() {
    return SOSIE_CUDA_ARCHITECTURES;
}

int toolkit_version() {
    return CUDART_VERSION;
}

}  // namespace sosie
