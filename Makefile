# SPDX-License-Identifier: Apache-2.0
#
# Needs Python 3.10 or newer and a C++17 compiler. Everything else is installed into .venv.
#
#   make demo     trains a repair network and a generator, and writes demo/report.html
#   make test     every check there is
#   make bench    measures sosie and its peers on this machine
#   make peers    other libraries' own tests, with sosie in their place
#   make lint     style and types alone
#   make clean    removes what the others made

PYTHON ?= python3
DEMO_ARGUMENTS ?=
BENCH_ARGUMENTS ?=
PEERS_ARGUMENTS ?=

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# scikit-build-core and CMake themselves, so that builds go on from where the last one stopped.
BUILD_REQUIREMENTS := "scikit-build-core>=1.0" "pybind11>=3.0" "cmake>=3.24" ninja
# Tests of what is computed by way of torch. The others go through all instruction sets themselves.
TORCH_TESTS := tests/test_torch_ssim.py tests/test_torch_ssd.py tests/test_torch_paired.py \
    tests/test_torch_distance.py tests/test_torch_recurrent.py tests/test_losses.py \
    tests/test_peers_ssim.py
SOURCES := pyproject.toml CMakeLists.txt README.md $(shell find csrc python -type f -not -name '*.pyc')
CXX_SOURCES := $(shell find csrc tests/cpp tests/simt -name '*.?pp' -o -name '*.cu' -o -name '*.cuh')
# $(call install,extra,build folder,warnings as errors)
install = $(PIP) --no-build-isolation -C build-dir=build/$(2) -C cmake.define.SOSIE_WERROR=$(3) ".[$(1)]"

comma := ,

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test bench peers lint clean format
.PHONY: test-python test-doctest test-isas test-kernels test-sanitizers test-neon test-demo
.PHONY: test-cuda-emulated test-nvcc

demo: $(VENV)/.installed
	$(BIN)/sosie demo --output demo/report.html $(DEMO_ARGUMENTS)

# In the order of the time they take to fail.
test: lint test-kernels test-sanitizers test-neon test-cuda-emulated test-python test-doctest test-isas test-demo
	@echo "All checks passed."

bench: $(VENV)/.installed-dev
	$(PIP) --requirement benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.bench_ssim $(BENCH_ARGUMENTS)
	$(BIN)/python -m benchmarks.bench_distance $(BENCH_ARGUMENTS)
	$(BIN)/python -m benchmarks.bench_compat
	$(BIN)/python -m benchmarks.bench_recurrent $(BENCH_ARGUMENTS)

# Environments of their own, below build/peers. PEERS_ARGUMENTS names libraries, or says --newest.
peers: $(VENV)/.torch
	rm -rf build/peers/wheels
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -C build-dir=build/default \
	    --wheel-dir build/peers/wheels .
	$(BIN)/python tests/peers/run.py --sosie build/peers/wheels/sosie-*.whl $(PEERS_ARGUMENTS)

# ------------------------------------------------------------------------------------ environment

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit("sosie needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) "pip>=24"
	touch $@

# torch first and alone: a resolver that sees it among others may try newer ones, gigabytes each.
$(VENV)/.torch: $(VENV)/.created constraints.txt
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) $(BUILD_REQUIREMENTS)
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(SOURCES)
	$(call install,zoo,default,OFF)
	touch $@

# piq asks for torchvision, which the tests replace by an empty module: sosie compares with none of
# the parts that need it. MONAI and prdc need nothing that is not there, but would choose versions.
$(VENV)/.installed-dev: $(VENV)/.torch $(SOURCES)
	$(call install,dev,strict,ON)
	$(PIP) --no-deps piq monai prdc
	touch $@ $(VENV)/.installed

# ------------------------------------------------------------------------------------------ style

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

# ----------------------------------------------------------------------------------- Python tests

# CUDA kernels too: on the emulator that test-cuda-emulated built, and by nvcc (see test-nvcc).
test-python: $(VENV)/.installed-dev
	$(PYTEST) tests

# Examples of the installed package, and of the documentation, which are to run as they stand. CuPy's
# executor cannot be imported without CuPy.
test-doctest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --doctest-modules --doctest-glob='*.md' --ignore-glob='*/backends/cupy/*' \
	    --pyargs sosie README.md docs/drop-ins.md docs/inference.md docs/training.md docs/weights.md

# The instruction set that is used here ran above.
test-isas: $(VENV)/.installed-dev
	for isa in $$($(BIN)/python -c 'from sosie import _core as c; print(*{*c.supported_isas()} - {c.isa()})'); do \
	    echo "instruction set $$isa"; \
	    SOSIE_ISA=$$isa $(PYTEST) $(TORCH_TESTS) || exit 1; \
	done

test-demo: $(VENV)/.installed-dev
	$(BIN)/sosie demo --output build/demo/report.html --steps 20 --generator-steps 20

# ------------------------------------------------------------- kernels without Python, every which way

# $(call kernel_tests,build folder,CMake arguments): builds and runs tests/cpp
define kernel_tests
$(BIN)/cmake -S . -B build/$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
    -DSOSIE_KERNEL_TESTS=ON -DSOSIE_WERROR=ON $(2) --log-level=WARNING
$(BIN)/cmake --build build/$(1)
$(BIN)/ctest --test-dir build/$(1) --output-on-failure
endef

test-kernels: $(VENV)/.torch
	$(call kernel_tests,kernels)

# The CUDA kernels on the CPU: values, races, accesses beyond arrays. Python's tests use the first.
test-cuda-emulated: $(VENV)/.torch
	$(call kernel_tests,cuda-emulated,-DSOSIE_CUDA_EMULATED=ON)
	$(call kernel_tests,cuda-emulated-address,-DSOSIE_CUDA_EMULATED=ON -DSOSIE_SANITIZE=address$(comma)undefined)
	$(call kernel_tests,cuda-emulated-thread,-DSOSIE_CUDA_EMULATED=ON -DSOSIE_SANITIZE=thread)

# What NVIDIA's compilers say to the CUDA kernels; part of test-python. Skipped without nvcc, unless
# REQUIRE_NVCC is set.
test-nvcc: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/test_nvcc.py

test-sanitizers: $(VENV)/.torch
	$(call kernel_tests,kernels-address,-DSOSIE_SANITIZE=address$(comma)undefined)
	$(call kernel_tests,kernels-thread,-DSOSIE_SANITIZE=thread)

CROSS := aarch64-linux-gnu
test-neon: $(VENV)/.torch
	@if command -v $(CROSS)-g++ > /dev/null && command -v qemu-aarch64 > /dev/null; then \
	    $(MAKE) --no-print-directory .test-neon; \
	elif [ -n "$(REQUIRE_NEON)" ]; then \
	    echo "NEON kernels: $(CROSS)-g++ or qemu-aarch64 is missing" >&2; exit 1; \
	else \
	    echo "NEON kernels: skipped, $(CROSS)-g++ or qemu-aarch64 is missing" \
	         "(packages g++-$(CROSS) and qemu-user)"; \
	fi

.PHONY: .test-neon
.test-neon:
	$(call kernel_tests,kernels-neon,-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	    -DCMAKE_CXX_COMPILER=$(CROSS)-g++ \
	    "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/$(CROSS)")

# ------------------------------------------------------------------------------------------- rest

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
