// SPDX-License-Identifier: Apache-2.0
//
// Arrays of every dtype and layout the kernels take, in memory of exactly their size, so that an
// address sanitizer sees a read or write beside them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "../../csrc/cpu/kernels.hpp"

namespace test {

using sosie::DType;

enum class Layout { contiguous, channels_last, flipped, strided, broadcast };

inline const char* name_of(Layout layout) {
    static const char* names[] = {"contiguous", "channels_last", "flipped", "strided", "broadcast"};
    return names[int(layout)];
}
inline const char* name_of(DType dtype) {
    static const char* names[] = {"uint8", "uint16", "float16", "bfloat16", "float32", "float64"};
    return names[int(dtype)];
}
inline int64_t bytes_of(DType dtype) {
    static const int64_t bytes[] = {1, 2, 2, 2, 4, 8};
    return bytes[int(dtype)];
}

// By the definition of the format: sign, exponent, fraction.
inline double decode_half(uint16_t bits) {
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    double value;
    if (exponent == 31)
        value = fraction ? std::numeric_limits<double>::quiet_NaN()
                         : std::numeric_limits<double>::infinity();
    else
        value =
            exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -value : value;
}
inline double decode_brain_half(uint16_t bits) {
    const uint32_t wide = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

// Of values that the format holds exactly, in its normal range, or 0 or NaN.
inline uint16_t encode_half(double value) {
    if (std::isnan(value)) return 0x7e00;
    if (value == 0) return 0;
    int exponent;
    const double fraction = std::frexp(std::fabs(value), &exponent);  // in [1/2, 1)
    const int bits = ((exponent + 14) << 10) + int(fraction * 2048) - 1024;
    return uint16_t(bits | (value < 0 ? 0x8000 : 0));
}
inline uint16_t encode_brain_half(double value) {
    const float narrow = float(value);
    uint32_t bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    return uint16_t(bits >> 16);
}

// An array of shape (batch, channels, depth, height, width); `i` counts its elements in that order.
class TestArray {
  public:
    TestArray(const int64_t* shape, DType dtype, Layout layout = Layout::contiguous)
        : dtype_(dtype) {
        std::memcpy(shape_, shape, sizeof shape_);
        static const int orders[2][5] = {{4, 3, 2, 1, 0}, {1, 4, 3, 2, 0}};  // innermost axis first
        int64_t size = 1;
        for (const int axis : orders[layout == Layout::channels_last]) {
            const bool spread = layout == Layout::strided && axis >= 3;
            const bool repeated = layout == Layout::broadcast && axis <= 1;
            strides_[axis] = repeated ? 0 : size * (spread ? 2 : 1);
            if (!repeated) size *= shape[axis] * (spread ? 2 : 1);
        }
        if (layout == Layout::flipped)
            for (const int axis : {3, 4}) {
                first_ += (shape[axis] - 1) * strides_[axis];
                strides_[axis] = -strides_[axis];
            }
        bytes_ = size * bytes_of(dtype);
        memory_.reset(new char[size_t(bytes_)]);
        // All ones: NaN, or the largest integer. A result that nobody wrote does not pass for one.
        std::memset(memory_.get(), 0xff, size_t(bytes_));
    }

    sosie::Array array() const {
        sosie::Array a{memory_.get() + first_ * bytes_of(dtype_), dtype_, {}};
        std::memcpy(a.strides, strides_, sizeof strides_);
        return a;
    }
    int64_t size() const { return shape_[0] * shape_[1] * shape_[2] * shape_[3] * shape_[4]; }
    int64_t plane_size() const { return shape_[2] * shape_[3] * shape_[4]; }
    const char* memory() const { return memory_.get(); }
    int64_t bytes() const { return bytes_; }

    double get(int64_t i) const {
        const char* p = address(i);
        switch (dtype_) {
            case DType::u8: return read<uint8_t>(p);
            case DType::u16: return read<uint16_t>(p);
            case DType::f16: return decode_half(read<uint16_t>(p));
            case DType::bf16: return decode_brain_half(read<uint16_t>(p));
            case DType::f32: return double(read<float>(p));
            case DType::f64: return read<double>(p);
        }
        return 0;
    }
    void set(int64_t i, double value) {
        char* p = address(i);
        switch (dtype_) {
            case DType::u8: return write(p, uint8_t(value));
            case DType::u16: return write(p, uint16_t(value));
            case DType::f16: return write(p, encode_half(value));
            case DType::bf16: return write(p, encode_brain_half(value));
            case DType::f32: return write(p, float(value));
            case DType::f64: return write(p, value);
        }
    }
    std::vector<double> plane(int64_t index) const {
        std::vector<double> values;
        for (int64_t i = 0; i < plane_size(); ++i) values.push_back(get(index * plane_size() + i));
        return values;
    }

  private:
    template <class T>
    static T read(const char* p) {
        T value;
        std::memcpy(&value, p, sizeof value);
        return value;
    }
    template <class T>
    static void write(char* p, T value) {
        std::memcpy(p, &value, sizeof value);
    }
    char* address(int64_t i) const {
        int64_t offset = first_;
        for (int axis = 4; axis >= 0; --axis) {
            offset += i % shape_[axis] * strides_[axis];
            i /= shape_[axis];
        }
        return memory_.get() + offset * bytes_of(dtype_);
    }

    int64_t shape_[5], strides_[5], first_ = 0, bytes_ = 0;
    DType dtype_;
    std::unique_ptr<char[]> memory_;
};

}  // namespace test
