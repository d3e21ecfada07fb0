# make demo   tunes a real model and shows how its answers change
# make lab    opens JupyterLab with the tutorial
# make bench  measures this project beside LLaMA-Factory, TRL and PEFT and writes docs/benchmarks.md; takes long
# make bench-dpo   the same of DPO alone
# make gpu-kit     gathers what a machine with a CUDA card and no network needs to test and measure this project
# make test   runs all tests that take minutes at most; `make test-all` runs the long ones too
# make test-gpu    tests on a CUDA card; LLF_TEST_DEVICE=cpu rehearses them without one. Takes .venv or, without it, PYTHON
#
# Needs Python 3.11+, Node 20+ and make; everything else goes into .venv.
#   PYTHON=python3.12          another Python for .venv
#   PIP_ARGS="-c constraints.txt"   the versions that were tested, instead of the newest
#   PYTEST_ARGS="-k supervisor"     passed to pytest
#   WORKERS=0                       tests one by one, as a debugger needs them; 3 run beside each other otherwise
#   LAB_ARGS="--no-browser"         passed to JupyterLab
#   KIT_ARGS="--python 3.13"        passed to the making of the GPU kit: the Python of the machine with the card
#   BENCH_ARGS="--only sft"         passed to the benchmark; --quick is a smoke test that changes no document

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
LAB_ARGS ?=
BENCH_ARGS ?=
KIT_ARGS ?=
# Half of the time tests wait, for a browser or another process: three at once keep two cores busy. Files stay together,
# and in order.
WORKERS ?= 3
IN_PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
VENV := .venv
BUILD := build
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Hundreds of processes of the tests import LLF, which is compiled once for all of them, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

BROWSERS := chromium chromium-browser google-chrome google-chrome-stable
BROWSER := $(firstword $(foreach name,$(BROWSERS),$(shell command -v $(name) 2>/dev/null)))

PANEL := llf_widgets/labextension/package.json
PANEL_SOURCES := $(wildcard labextension/src/*.ts labextension/src/*.tsx labextension/style/* labextension/schema/*) labextension/widgets/shared/llf.css \
  labextension/package.json labextension/tsconfig.json labextension/version.mjs llf_core/__init__.py
VIEWS := llf_widgets/static/monitor.js
VIEW_SOURCES := $(wildcard labextension/widgets/*/*.js labextension/widgets/*/*.css labextension/src/*.ts) labextension/package.json
NODE_MODULES := labextension/node_modules/.installed
INSTALLED := $(VENV)/.installed

.PHONY: help install demo lab test test-gpu test-panel test-all lint format bench bench-dpo gpu-kit clean
help:
	@awk '/^$$/{exit} {sub(/^# ?/, ""); print}' Makefile

install: $(INSTALLED) $(PANEL) $(VIEWS)

# ---- what the others need ---------------------------------------------------------------------
$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "LLF needs Python 3.11 or newer, and there is no $(PYTHON) here."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "LLF needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Name another one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# jupyter-builder brings jlpm, which installs what the panel is built with.
$(VENV)/.builder: | $(VENV)/bin/python
	python -m pip install -q $(PIP_ARGS) 'jupyter-builder>=1.2,<2'
	@touch $@

$(NODE_MODULES): labextension/package.json labextension/yarn.lock | $(VENV)/.builder
	@command -v node >/dev/null || { echo "LLF's panel and views are built with Node 20 or newer, and there is no node here. See nodejs.org, or install it with your system's packages."; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { \
	  echo "LLF's panel and views are built with Node 20 or newer; this one is $$(node --version)."; exit 1; }
	cd labextension && jlpm install --immutable
	@touch $@

$(PANEL): $(PANEL_SOURCES) | $(NODE_MODULES)
	rm -rf llf_widgets/labextension
	cd labextension && jlpm build:prod
	@touch $@

# The notebook views: one script and one stylesheet each.
$(VIEWS): $(VIEW_SOURCES) | $(NODE_MODULES)
	cd labextension && jlpm build:widgets

# The panel is built by then, so pip need not do it; a link makes later builds of it show at once.
$(INSTALLED): pyproject.toml | $(PANEL) $(VIEWS)
	@echo "Installing LLF, torch, transformers and Jupyter into $(VENV): 2 to 6 GB, some minutes …"
	SKIP_JUPYTER_BUILDER=1 python -m pip install $(PIP_ARGS) -e '.[train,eval,lab,serve,test]' | sed -u '/already satisfied/d'
	jupyter-builder develop . --overwrite
	@touch $@

# ---- what people do ---------------------------------------------------------------------------
demo: install
	python notebooks/execute.py notebooks/quickstart.ipynb $(BUILD)
	llf demo --report
	@echo
	@echo "Open the notebook and try it yourself: make lab"

lab: install
	jupyter lab $(LAB_ARGS) notebooks/quickstart.ipynb

# ---- what developers do -----------------------------------------------------------------------
test: install test-panel
ifneq ($(BROWSER),)
	python -m pytest $(IN_PARALLEL) -m "not long and not gpu" $(PYTEST_ARGS)
else ifneq ($(CI),)
	@echo "The browser tests need chromium, and there is none here. Install it: apt-get install chromium"; exit 1
else
	python -m pytest $(IN_PARALLEL) -m "not long and not gpu and not browser" $(PYTEST_ARGS)
	@echo "The browser tests did not run: there is no chromium here. Install it (apt-get install chromium), then: make test"
endif

test-all: install test-panel
	python -m pytest $(IN_PARALLEL) $(PYTEST_ARGS)

# Installs nothing: a card is often had without a network, on an image that has torch.
test-gpu:
	$(if $(wildcard $(VENV)/bin/python),python,$(PYTHON)) -m pytest tests/gpu $(PYTEST_ARGS)

test-panel: $(NODE_MODULES)
	cd labextension && jlpm test

lint: install
	ruff check .
	ruff format --check .
	mypy
	cd labextension && jlpm lint

format: install
	ruff check --fix .
	ruff format .
	cd labextension && jlpm format

bench: install
	python -m benchmarks.sft $(BENCH_ARGS)
ifeq ($(findstring --quick,$(BENCH_ARGS)),)
	python -m benchmarks.report
endif

bench-dpo: install
	python -m benchmarks.dpo $(BENCH_ARGS)
ifeq ($(findstring --quick,$(BENCH_ARGS)),)
	python -m benchmarks.report
endif

gpu-kit: install
	python -m benchmarks.kit.gather $(BUILD)/gpu-kit $(KIT_ARGS)

clean:
	rm -rf build dist $(VENV) labextension/node_modules labextension/lib labextension/tsconfig.tsbuildinfo \
	  llf_widgets/labextension llf_widgets/static .pytest_cache .mypy_cache .ruff_cache .hypothesis
