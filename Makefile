# The words a developer types; CI runs the same ones. Everything happens in .venv, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SOURCES := $(wildcard detkit/csrc/* detkit/csrc/*/*)

.PHONY: help demo test test-slow test-gpu check docs docs-test format bench setup clean

setup: $(STAMP)

# Made again when a dependency, the build or a native source changes; a Python edit costs nothing.
$(STAMP): constraints.txt pyproject.toml setup.py $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip setuptools wheel ninja
	mkdir -p $(VENV)/tmp  # pip holds 4 GB of downloads at once, for which many a /tmp is too small
	TMPDIR="$(CURDIR)/$(VENV)/tmp" $(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision
	rm -rf $(VENV)/tmp
	$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt -e ".[dev]"
	touch $@

help:
	@echo "demo       train a small detector on data made on the spot"
	@echo "test       the suite; test-slow: the tests that take longer; test-gpu: those that need a GPU"
	@echo "check      linters, types, room borders and every config; format: let the formatters rewrite"
	@echo "docs       check links, commands, paths and messages of the docs, and build their site into site/"
	@echo "docs-test  run every command and notebook of the docs on tiny data"
	@echo "bench      speed beside the peers'"
	@echo "setup      make .venv; clean: remove what was built"

demo: $(STAMP)
	$(BIN)/detkit train configs/quickstart/shapes.yaml --output runs/quickstart --overwrite

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'detkit/csrc/*.cpp' 'detkit/csrc/*.h' 'detkit/csrc/*.cu' 'detkit/csrc/**/*.cpp' 'detkit/csrc/**/*.h' 'detkit/csrc/**/*.cu' 'detkit/csrc/**/*.cuh' 'tests/ops/cuda_on_host/*.h' 'tests/ops/cuda_on_host/*.cpp' | sort -u)
	$(BIN)/detkit config check $$(git ls-files 'configs/*.yaml' 'configs/**/*.yaml' 'projects/*/*.yaml' ':!configs/losses' ':!configs/training' | sort -u)

docs: $(STAMP)
	$(BIN)/python -m tools.check_docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" tests/test_readme.py tests/test_notebooks.py tests/test_site.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'detkit/csrc/*.cpp' 'detkit/csrc/*.h' 'detkit/csrc/*.cu' 'detkit/csrc/**/*.cpp' 'detkit/csrc/**/*.h' 'detkit/csrc/**/*.cu' 'detkit/csrc/**/*.cuh' 'tests/ops/cuda_on_host/*.h' 'tests/ops/cuda_on_host/*.cpp' | sort -u)

bench: $(STAMP)
	$(BIN)/python -m benchmarks.bench_step
	$(BIN)/python -m benchmarks.bench_infer
	$(BIN)/python -m benchmarks.bench_eval
	$(BIN)/python -m benchmarks.bench_nms
	$(BIN)/python -m benchmarks.bench_loss

clean:
	rm -rf build dist site *.egg-info detkit/_C*.so detkit/_build_info.json
