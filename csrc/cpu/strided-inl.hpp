// SPDX-License-Identifier: Apache-2.0
//
// Blocks of consecutive elements in and out: any dtype, any strides. A block is read in place where
// memory holds it as the kernel wants it, else it is converted into scratch memory that stays in
// the first-level cache; results take the same way back.
#pragma once
#include <type_traits>

#include "rows-inl.hpp"
#include "strided.hpp"

namespace {

using sosie::Elements;

// Elements of a block: a page of the computing type, so that six blocks fit the L1 cache.
template <class T>
constexpr int64_t kBlock = 4096 / int64_t(sizeof(T));

template <class T>
constexpr DType kNative = sizeof(T) == 4 ? DType::f32 : DType::f64;

// use(offset, stride, count): the runs of equally spaced elements that positions [begin, begin +
// count) consist of, in order. Offsets count from the image's first element.
template <class Use>
inline void each_run(const Elements& a, int64_t begin, int64_t count, Use use) {
    const int last = a.axes - 1;
    const int64_t length = a.lengths[last], stride = a.strides[last];
    const int64_t rows = last > 0 ? a.lengths[last - 1] : 1;
    const int64_t row_stride = last > 0 ? a.strides[last - 1] : 0;
    int64_t column = begin % length, row = begin / length % rows, slab = begin / length / rows;
    for (; count > 0; row = 0, ++slab) {
        int64_t offset = 0, rest = slab;
        for (int axis = last - 2; axis >= 0; --axis) {
            offset += rest % a.lengths[axis] * a.strides[axis];
            rest /= a.lengths[axis];
        }
        for (; row < rows && count > 0; ++row, column = 0) {
            const int64_t run = smaller(length - column, count);
            use(offset + row * row_stride + column * stride, stride, run);
            count -= run;
        }
    }
}

template <class Type>
constexpr bool kIsHalf = std::is_same<Type, Half>::value || std::is_same<Type, BrainHalf>::value;

template <class T, class Source>
inline T widen_any(Source value) {
    if constexpr (kIsHalf<Source>)
        return T(widen<float, Source>(value));
    else
        return widen<T, Source>(value);
}

template <class T, class Source>
void gather(const Elements& a, int64_t image, int64_t begin, int64_t count, T* out) {
    const Source* data = static_cast<const Source*>(a.data) + image * a.image_stride;
    each_run(a, begin, count, [&](int64_t offset, int64_t stride, int64_t run) {
        const Source* from = data + offset;
        if (run == 3) {  // colours that lie last: too few for what loops prepare before they start
#pragma GCC unroll 3
            for (int64_t i = 0; i < 3; ++i) out[i] = widen_any<T, Source>(from[i * stride]);
        } else if (stride == 1) {
            for (int64_t i = 0; i < run; ++i) out[i] = widen_any<T, Source>(from[i]);
        } else {
            for (int64_t i = 0; i < run; ++i) out[i] = widen_any<T, Source>(from[i * stride]);
        }
        out += run;
    });
}

template <class T>
class Reader {
  public:
    // `scratch`: kBlock<T> values.
    Reader(const Elements& a, int64_t image, T* scratch)
        : a_(a), image_(image), scratch_(scratch) {}

    // Positions [begin, begin + count) of the image; count <= kBlock<T>.
    const T* read(int64_t begin, int64_t count) {
        const int last = a_.axes - 1;
        const int64_t length = a_.lengths[last], column = begin % length;
        if (column + count <= length) {
            int64_t offset = 0;
            each_run(a_, begin, 1, [&](int64_t at, int64_t, int64_t) { offset = at; });
            if (a_.strides[last] == 1 && a_.dtype == kNative<T>)
                return static_cast<const T*>(a_.data) + image_ * a_.image_stride + offset;
            if (a_.strides[last] == 0) {
                if (offset == repeated_ && count <= repeats_) return scratch_;
                repeated_ = offset;
                repeats_ = count;
                gather_any(begin, count);
                return scratch_;
            }
        }
        repeats_ = 0;
        gather_any(begin, count);
        return scratch_;
    }

  private:
    void gather_any(int64_t begin, int64_t count) {
        switch (a_.dtype) {
            case DType::u8: return gather<T, uint8_t>(a_, image_, begin, count, scratch_);
            case DType::u16: return gather<T, uint16_t>(a_, image_, begin, count, scratch_);
            case DType::f16: return gather<T, Half>(a_, image_, begin, count, scratch_);
            case DType::bf16: return gather<T, BrainHalf>(a_, image_, begin, count, scratch_);
            case DType::f32: return gather<T, float>(a_, image_, begin, count, scratch_);
            case DType::f64: return gather<T, double>(a_, image_, begin, count, scratch_);
        }
    }

    const Elements& a_;
    int64_t image_;
    T* scratch_;
    // The scratch memory holds `repeats_` copies of the element at offset `repeated_`.
    int64_t repeated_ = 0, repeats_ = 0;
};

template <class T, class Target>
inline Target narrow_any(T value) {
    if constexpr (kIsHalf<Target>)
        return narrow<Target, float>(float(value));
    else
        return narrow<Target, T>(value);
}

template <class T, class Target>
void scatter(const Elements& a, int64_t image, int64_t begin, int64_t count, const T* values) {
    Target* data = static_cast<Target*>(a.data) + image * a.image_stride;
    each_run(a, begin, count, [&](int64_t offset, int64_t stride, int64_t run) {
        Target* to = data + offset;
        if (stride == 1) {
            for (int64_t i = 0; i < run; ++i) to[i] = narrow_any<T, Target>(values[i]);
        } else {
            for (int64_t i = 0; i < run; ++i) to[i * stride] = narrow_any<T, Target>(values[i]);
        }
        values += run;
    });
}

template <class T>
class Writer {
  public:
    Writer(const Elements& a, int64_t image, T* scratch)
        : a_(a), image_(image), scratch_(scratch) {}

    bool present() const { return a_.data != nullptr; }

    // Where positions [begin, begin + count) are to be put; `finish` takes them to the array.
    T* begin(int64_t begin, int64_t count) const {
        const int last = a_.axes - 1;
        if (a_.dtype != kNative<T> || a_.strides[last] != 1 ||
            begin % a_.lengths[last] + count > a_.lengths[last])
            return scratch_;
        T* place = nullptr;
        each_run(a_, begin, 1, [&](int64_t offset, int64_t, int64_t) {
            place = static_cast<T*>(a_.data) + image_ * a_.image_stride + offset;
        });
        return place;
    }
    void finish(int64_t begin, int64_t count, const T* values) const {
        if (values != scratch_) return;
        switch (a_.dtype) {
            case DType::f16: return scatter<T, Half>(a_, image_, begin, count, values);
            case DType::bf16: return scatter<T, BrainHalf>(a_, image_, begin, count, values);
            case DType::f64: return scatter<T, double>(a_, image_, begin, count, values);
            default: return scatter<T, float>(a_, image_, begin, count, values);
        }
    }

  private:
    const Elements& a_;
    int64_t image_;
    T* scratch_;
};

}  // namespace
