# Everything lives in .venv; nothing here needs root. `make PYTHON=python3.12 install` picks another interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SERVING := $(VENV)/.serving
TOOLS  := $(VENV)/.tools
CLIENTS := $(VENV)/kserve
BROWSER := $(VENV)/browser
AXE     := axe-core@4.14.1
ARGS   ?=
# two more than processors: tests wait a third of their time, for a process that does nothing either
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)

# uv where it is there, for speed; else the pip of the environment, however old. `make UV= serve` takes pip in any case.
UV     ?= $(shell command -v uv)
INTO    = $(VENV)
ifeq ($(UV),)
PIP     = $(INTO)/bin/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet
else
PIP     = VIRTUAL_ENV=$(INTO) $(UV) --quiet pip
INSTALL = $(PIP) install --compile-bytecode
endif

.DEFAULT_GOAL := help
.PHONY: help install serve clients browser test models ends check format proto soak bench bench-peers bench-swap lock clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(TOOLS) ## create .venv with all that serves, tests and checks, and this project, editable

$(SERVING): requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11 install")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing what serving needs into $(VENV); the first time takes a minute"
	$(INSTALL) --no-deps --require-hashes -r requirements.lock -r requirements-build.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	$(PIP) check
	@$(BIN)/python -m compileall -q serving # or each start would, where importing may not write bytecode
	@touch $@

$(TOOLS): $(SERVING) requirements-dev.lock
	@echo "installing the tools for testing and checking into $(VENV)"
	$(INSTALL) --no-deps --require-hashes -r requirements-dev.lock
	$(PIP) check
	@$(BIN)/python -m compileall -q tests
	-@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --collect-only -qq >/dev/null # or each worker would rewrite the asserts
	@touch $@

serve: $(SERVING) ## publish the demo models if the store is empty, then serve on 127.0.0.1:8000
	@$(BIN)/serving demo --if-empty
	@exec $(BIN)/serving serve $(ARGS)

clients: $(CLIENTS)/.installed ## install KServe's client into an environment of its own; without it its test is skipped

$(CLIENTS)/.installed: INTO = $(CLIENTS)
$(CLIENTS)/.installed: requirements-kserve.lock
	$(PYTHON) -m venv $(CLIENTS)
	$(INSTALL) --no-deps --require-hashes -r requirements-kserve.lock
	$(PIP) check
	@touch $@

browser: $(BROWSER)/$(AXE) ## install axe-core from npm, beside .venv's packages; without it the tests of accessibility are skipped

# The test knows the checksum of the one file that it runs. No scripts of the package are run, and no lock file is written.
$(BROWSER)/$(AXE):
	npm install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --prefix $(BROWSER) $(AXE)
	@touch $@

test: install ## run the whole test suite on all cores; ARGS="-k name" and the like reach pytest
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

ends: install ## what installs: the wheel with the oldest and newest libraries, environments; asks the package registry
	$(BIN)/pytest -m ends -n $(WORKERS) --dist loadfile -o faulthandler_timeout=0 $(ARGS)

# Packages on top of those in .venv, whose versions decide: hence no resolving, and a directory of their own.
models: install ## try docs/models.md with CatBoost, statsmodels and others, too, which are not in .venv
	rm -rf $(VENV)/models
	$(INSTALL) --no-deps --require-hashes --target $(abspath $(VENV))/models -r requirements-models.lock
	PYTHONPATH=$(abspath $(VENV))/models $(BIN)/pytest $(ARGS) tests/e2e/test_models_page.py

check: install ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A pool of its own: another package with a client of this protocol may have put the same names into the common one.
PROTO := serving/api/grpc
proto: install ## generate the gRPC messages from their definition
	$(BIN)/python -m grpc_tools.protoc -I $(PROTO) --python_out=$(PROTO) --pyi_out=$(PROTO) inference.proto
	sed -i -e 's/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/' \
		-e '1i # fmt: off\n# ruff: noqa\n# mypy: ignore-errors' $(PROTO)/inference_pb2.py $(PROTO)/inference_pb2.pyi

# The last one needs the machine to itself, and shows how far it is.
SOAKING = SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) $(BIN)/pytest -m soak -o faulthandler_timeout=0
soak: install ## every test at length, then random faults under load, ten minutes or SOAK_SECONDS=3600, from SOAK_SEED=1
	$(SOAKING) -n $(WORKERS) --ignore tests/e2e/test_soak.py $(ARGS)
	$(SOAKING) tests/e2e/test_soak.py $(ARGS)

bench: install ## run the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: install ## measure other model servers beside this one; installs them into .bench-cache
	$(BIN)/python -m benchmarks $(ARGS) against_peers

bench-swap: install ## swap a gigabyte into this server, the usual service and MLServer under load
	$(BIN)/python -m benchmarks $(ARGS) swap_peers

# uv resolves for Python 3.11 and newer on any platform and keeps what is pinned; ARGS=--upgrade takes the newest, ARGS="-P numpy" one.
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/lock/bin/uv pip compile --quiet --no-config \
	--python-version 3.11 --universal --fork-strategy fewest --generate-hashes --no-annotate $(ARGS)

lock: ## write the requirements*.lock files from pyproject.toml
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) --group dev pyproject.toml -o requirements-dev.lock
	$(LOCK) --extra arrow --extra grpc --group boosters pyproject.toml -c requirements-dev.lock -o requirements.lock
	$(LOCK) --group build -c requirements-dev.lock -o requirements-build.lock
	$(LOCK) --group kserve -o requirements-kserve.lock
	$(LOCK) --no-deps --group models -o requirements-models.lock

clean: ## remove .venv, caches and build output; keeps model_store and .serving
	rm -rf $(VENV) build dist .coverage htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
