# `make demo`: from nothing to a finished study on embedded data. `make test`: everything that is checked.
PYTHON ?= python3
BIN := .venv/bin
# Byte code is written when a module is first used: an install that compiles all of torch takes twice as long
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE
# They ask for torchvision, which has no build for each build of torch: tests declare the operators that it lacks then
WITHOUT_TORCHVISION = torchattacks timm torchvision
# In the order of tests/conftest.py, the longest files first
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --numprocesses auto

.PHONY: demo test test-site test-fast test-oldest test-newest lint check fuzz site notebooks clean

demo: .venv/installed
	$(BIN)/notbugs demo

# The checks beside the tests: while some of these wait for processes, a core has nothing to do
test: .venv/installed-test
	@$(MAKE) --no-print-directory check > .venv/check.log 2>&1 & checks=$$!; \
	echo '$(PYTEST) -m "not site"'; $(PYTEST) -m "not site"; tests=$$?; \
	wait $$checks; checks=$$?; cat .venv/check.log; exit $$(( tests || checks ))

# The documentation: its pages are built, all links followed, its code and notebooks run
test-site: .venv/installed-docs
	$(PYTEST) -m site tests/test_documents.py tests/test_site.py tests/test_notebooks.py

# What a developer runs at each save: no browser, nothing slow
test-fast: .venv/installed-test
	$(PYTEST)

# With the oldest, and with the newest, version of each package that pyproject.toml allows: docs/releases.md
TESTS ?= tests notbugs
TORCH ?= 2.13.0
test-oldest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-oldest test-newest:
	$(PYTHON) -m venv .venv-$(RESOLUTION)
	.venv-$(RESOLUTION)/bin/python -m pip --disable-pip-version-check install --quiet uv
	.venv-$(RESOLUTION)/bin/uv pip install --python .venv-$(RESOLUTION) --resolution $(RESOLUTION) --editable '.[test]' torch==$(TORCH)
	.venv-$(RESOLUTION)/bin/uv pip install --python .venv-$(RESOLUTION) --no-deps torchattacks
	.venv-$(RESOLUTION)/bin/python -m pytest $(TESTS) -m "not browser and not site"

# Format, lint, types and layers, without changing a file
check: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Damaged and malicious files at every door, ten minutes each: docs/fuzzing.md
fuzz: .venv/installed-test
	$(BIN)/python benchmarks/fuzz.py --seconds 600 --write

# The documentation as pages, for any browser and without a network: site/index.html
site: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Run the notebooks anew, with their outputs
notebooks: .venv/installed-docs
	$(BIN)/python docs/run_notebooks.py

lint: .venv/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "notbugs needs Python 3.11 or newer; say which with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip  # Python 3.11 brings one that takes twice the CPU time to find versions

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/installed-test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps $(WITHOUT_TORCHVISION)
	@touch .venv/installed $@

.venv/installed-docs: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test,docs]'
	$(PIP) --no-deps $(WITHOUT_TORCHVISION)
	@touch .venv/installed .venv/installed-test $@

clean:
	rm -rf .venv .venv-* runs site .pytest_cache .mypy_cache .ruff_cache
