// SPDX-License-Identifier: Apache-2.0
//
// Names of the objects that are compiled once per instruction set, SOSIE_ISA. Everything else in
// them has internal linkage: a template or inline function that left its object would be merged by
// the linker with the copy of another instruction set, and run where it must not.
#pragma once

#define SOSIE_JOIN_(a, b) a##b
#define SOSIE_JOIN(a, b) SOSIE_JOIN_(a, b)
#define SOSIE_TEXT_(a) #a
#define SOSIE_TEXT(a) SOSIE_TEXT_(a)

// SOSIE_NAME(ssim_): the SSIM family's table of this instruction set.
#define SOSIE_NAME(prefix) SOSIE_JOIN(prefix, SOSIE_ISA)

// The float and the double instantiation of a kernel.
#define SOSIE_BOTH(tasks, scratch, run)                    \
    {                                                      \
        {&tasks<float>, &scratch<float>, &run<float>}, {   \
            &tasks<double>, &scratch<double>, &run<double> \
        }                                                  \
    }
