# Two commands do all the set-up: `make demo` and `make test`. Both use .venv; nothing else on the
# machine is touched. PYTHON chooses the interpreter that .venv is made with.
PYTHON ?= python3
PYTEST_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := runtime/fundus_runtime training/fundus_training export/fundus_export
NATIVE := $(shell find runtime/native -name '*.[ch]pp' -o -name '*.cu' -o -name CMakeLists.txt)
BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)

# The pins hold inside pip's isolated builds too; old pip reads the first name, new pip the second.
# As a URL, because pip takes a blank in a path for the start of another file.
empty :=
CONSTRAINTS := file://$(subst $(empty) ,%20,$(CURDIR))/constraints.txt
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.PHONY: help demo test-install test test-native test-sanitizers test-cuda-build test-wheel \
  test-tensorrt test-gpu bench bench-check bench-jetson check format ship-bundle clean
help:
	@echo 'make demo          install the runtime, screen a fundus photograph, write demo/'
	@echo 'make test          install what tests need and run every test'
	@echo 'make test-install  the first half of it'
	@echo 'make test-native   the C++ core alone, warnings as errors'
	@echo 'make test-sanitizers  the same with sanitizers, and $(FUZZ_INPUTS) fuzzed frames'
	@echo 'make test-cuda-build  its CUDA twin, where nvcc is; runs it where a GPU is'
	@echo 'make test-wheel    build sdist and wheels, run the runtime tests from them on each Python'
	@echo 'make test-tensorrt the TensorRT builder against the real TensorRT 8.5.3.1 (2 GB, no GPU)'
	@echo 'make test-gpu      build and run real engines: FUNDUS_REQUIRE_GPU=1 make test-gpu'
	@echo 'make bench         how fast, how faithful, how that grows: a report on this machine'
	@echo 'make bench-check   measure the runtime beside its peers, hold it to benchmarks/bars.toml'
	@echo 'make bench-jetson  time, energy and heat of exams on a Jetson: benchmarks/jetson.md'
	@echo 'make check         ruff, mypy, clang-format'
	@echo 'make format        rewrite what ruff and clang-format can'
	@echo 'make ship-bundle   record bundles/edge as the bundle that this package ships'
	@echo 'make clean         remove what was built; the virtual environment stays'

demo: $(VENV)/.demo-installed
	$(BIN)/fundus-screen demo --out demo

test-install: $(VENV)/.test-installed

test: test-install test-native test-cuda-build test-wheel
	$(BIN)/pytest $(PYTEST_FLAGS)

test-native: test-install
	PATH="$(CURDIR)/$(BIN):$$PATH" && cmake --preset dev --log-level=WARNING \
	  && cmake --build --preset dev && ctest --preset dev

# Not part of `make test`: the fuzzing takes minutes. Any finding ends it.
FUZZ_INPUTS ?= 100000
FUZZ_SEED ?= 1
test-sanitizers: test-install
	PATH="$(CURDIR)/$(BIN):$$PATH" && cmake --preset sanitizers --log-level=WARNING \
	  && cmake --build --preset sanitizers && ctest --preset sanitizers
	build/sanitizers/runtime/native/fundus_fuzz_geometry $(FUZZ_INPUTS) $(FUZZ_SEED)

# Compiles the kernels for every GPU that they are for, warnings as errors, the binding too.
test-cuda-build: test-install
	@if ! command -v "$${CUDACXX:-nvcc}" >/dev/null; then \
	  echo 'test-cuda-build: skipped, no CUDA compiler (nvcc) on the path'; exit 0; fi; \
	set -e; PATH="$(CURDIR)/$(BIN):$$PATH"; \
	cmake --preset cuda --log-level=WARNING -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python"; \
	cmake --build --preset cuda; ctest --preset cuda -R cuda; \
	FUNDUS_CUDA_BUILD=build/cuda pytest -q -m 'not needs_gpu' tests/runtime/test_preprocess_cuda.py

test-wheel: test-install
	.ci/test-wheel

# Not part of `make test`: it fetches 1.7 GB into .venv-tensorrt.
test-tensorrt:
	.ci/test-tensorrt $(PYTEST_FLAGS)

# On a machine with a GPU, TensorRT and cuda-python, in the environment that make was called in or
# in the one whose Python GPU_PYTHON names.
GPU_PYTHON ?= $(BIN)/python
test-gpu:
	$(GPU_PYTHON) -m pytest -m needs_gpu --confcutdir tests/export/engines \
	  tests/export/engines/test_gpu.py $(PYTEST_FLAGS)

# Wants the machine to itself; the first time, some minutes more for the models. What it leaves out
# without FUNDUS_DATA, the report says.
BENCH_FLAGS ?=
bench: $(VENV)/.bench-installed
	rm -rf build/benchmarks/run
	$(BIN)/pytest benchmarks -q $(BENCH_FLAGS)
	$(BIN)/python benchmarks/limits.py
	$(BIN)/python benchmarks/runtime_speed.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/faithfulness.py
	$(BIN)/python benchmarks/report.py

bench-check: $(VENV)/.bench-installed
	$(BIN)/python benchmarks/bench_check.py $(BENCH_FLAGS)

# On a Jetson, with the Python that fundus-edge is installed in; it installs nothing.
JETSON_PYTHON ?= python3
JETSON_FLAGS ?=
bench-jetson:
	$(JETSON_PYTHON) benchmarks/jetson.py --bundle bundles/edge $(JETSON_FLAGS)

check: test-install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(filter %.cpp %.hpp %.cu,$(NATIVE))

format: test-install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(filter %.cpp %.hpp %.cu,$(NATIVE))

# The shipped bundle is trusted by this hash alone, so that recording it is a step of its own.
ship-bundle:
	printf '{"edge": "%s"}\n' "$$(sha256sum bundles/edge/manifest.json | cut -d ' ' -f 1)" \
	  > runtime/fundus_runtime/shipped.json

clean:
	rm -rf build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.bench-installed: $(VENV)/.created $(BUILD_INPUTS)
	$(BIN)/pip install -e '.[dev,train,export,demo,bench]'
	@touch $@ $(VENV)/.test-installed $(VENV)/.demo-installed

# Says what is missing and which package of Debian and Ubuntu brings it, before pip fails at length.
$(VENV)/.created:
	@command -v '$(PYTHON)' >/dev/null || \
	  { echo 'error: no $(PYTHON) here; install python3 (3.10 to 3.13) or name one: make PYTHON=...' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "error: $$('$(PYTHON)' --version) is not supported; name a Python 3.10 to 3.13: make PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'error: $(PYTHON) cannot make virtual environments; install them: apt install python3-venv' >&2; exit 1; }
	@'$(PYTHON)' -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
	  { echo 'error: the headers of $(PYTHON) (Python.h) are missing; install them: apt install python3-dev' >&2; exit 1; }
	@command -v "$${CXX:-c++}" >/dev/null || \
	  { echo "error: no C++ compiler ($${CXX:-c++}) here; install one: apt install g++" >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV)
	@touch $@

# Editable, so that neither command needs the other's install and a changed .py file counts at once.
$(VENV)/.demo-installed: $(VENV)/.created $(BUILD_INPUTS)
	$(BIN)/pip install -e '.[demo]'
	@touch $@

$(VENV)/.test-installed: $(VENV)/.created $(BUILD_INPUTS)
	$(BIN)/pip install -e '.[dev,train,export,demo,report]'
	@touch $@ $(VENV)/.demo-installed
