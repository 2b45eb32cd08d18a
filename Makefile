# Two distributions of the host packages, each in an environment of its own: .venv has the maintained forks (the
# default), .venv-openmmlab the original OpenMMLab packages. .venv-oldest and .venv-latest have the forks with other
# versions of the rest; .venv-audit has only the tools that look for vulnerabilities, .venv-site those of the site. Each step leaves a file in .done/ of
# the environment, whose name has the hash of the files that the step depends on: running setup again does only what is
# missing or has changed.

PYTHON ?= python3
PYTEST_ARGS ?=
NOTEBOOK_ARGS ?=
JOBS ?= $(shell nproc)
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))

VENV := .venv
VENV2 := .venv-openmmlab
OLDEST := .venv-oldest
LATEST := .venv-latest
AUDIT := .venv-audit
SITE := .venv-site

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# All of them for every environment: they include one another.
LOCKS := requirements/build.txt requirements/common.txt requirements/forks.txt requirements/onedl.txt \
         requirements/oldest.txt requirements/openmmlab.txt
PACKAGE_FILES := setup.py pyproject.toml knet_plugin/__init__.py
hash = $(shell cat $(1) | sha256sum | cut -c1-12)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:  ## List the targets
	@echo 'K-Net for mmdet 3 and mmseg 1. Start with `make demo` or `make test`; both set up .venv first.'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 22
	@echo 'Settings: PYTHON=python3.11 (3.10 to 3.12), JOBS=2 (compilers at once), PYTEST_ARGS="-k name",'
	@echo '          WORKERS=2 (tests at once; 0 to debug them)'

.PHONY: demo
demo: setup  ## Set up, then train a small model on made-up images and show what it finds
	$(VENV)/bin/python demo/demo.py

# One thread for each worker: with more threads than cores, torch is several times slower.
test test-slow test-busy test-training test-openmmlab test-oldest test-latest: export OMP_NUM_THREADS = 1
PYTEST = -m pytest -n $(WORKERS) -m 'not slow' $(PYTEST_ARGS)

.PHONY: test
test: setup  ## Set up, then run the tests (all but the slow ones)
	$(VENV)/bin/python $(PYTEST)

.PHONY: test-openmmlab
test-openmmlab: setup-openmmlab  ## Run the same tests with the original OpenMMLab packages
	$(VENV2)/bin/python $(PYTEST)

.PHONY: test-training
test-training: setup  ## Train each task for some iterations, and run the commands of docs/own_data.md
	$(VENV)/bin/python -m pytest tests/test_training.py tests/test_own_data.py -m slow $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: setup  ## Run the slow tests: builds, trainings, interruptions, real images
	$(VENV)/bin/python -m pytest -n $(WORKERS) -m slow $(PYTEST_ARGS)

.PHONY: test-busy
test-busy: setup  ## Run the tests three times in random order while all cores are busy
	@for _ in $$(seq $(JOBS)); do (while :; do :; done) & pids="$${pids-} $$!"; done; trap "kill $$pids" EXIT; \
	for seed in 1 2 3; do $(VENV)/bin/python $(PYTEST) -p randomly --randomly-seed=$$seed; done

.PHONY: test-oldest
test-oldest: setup-oldest  ## Run the tests with the oldest torch and numpy that the forks allow
	$(OLDEST)/bin/python $(PYTEST)

.PHONY: test-latest
test-latest: setup-latest  ## Run the tests with the newest version of everything (may fail)
	@echo 'The newest versions:'; $(LATEST)/bin/python -m pip list 2>/dev/null | grep -E '^(torch|numpy|scipy|onedl-.*) '
	$(LATEST)/bin/python $(PYTEST)

.PHONY: audit
audit: setup-audit  ## Look for unsafe code, and for known vulnerabilities in the pinned packages
	$(AUDIT)/bin/python .ci/audit.py

.PHONY: lint
lint: setup  ## Check the code's style
	$(VENV)/bin/ruff check .

.PHONY: types
types: setup  ## Check the types
	$(VENV)/bin/mypy

.PHONY: docs
docs: setup site  ## Check that the public interface is documented, and build the site
	$(VENV)/bin/interrogate knet_plugin tools benchmarks demo

.PHONY: site
site: $(SITE)/.done/$(call hash,requirements/site.txt)  ## Build the site of docs/ into site/; broken links and unknown names are errors
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict -d site
	@echo 'open site/index.html through a server: python3 -m http.server -d site'

.PHONY: notebooks
notebooks: export OMP_NUM_THREADS = 1
notebooks: setup $(VENV)/.done/notebooks-$(call hash,requirements/notebooks.txt)  ## Run the notebooks of demo/; NOTEBOOK_ARGS=--inplace keeps their outputs
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" jupyter execute $(NOTEBOOK_ARGS) demo/notebooks/*.ipynb

$(VENV)/.done/notebooks-$(call hash,requirements/notebooks.txt): | setup
	@echo '==> what runs notebooks'
	@$(VENV)/bin/python -m pip install -q --no-deps -r requirements/notebooks.txt
	@touch $@

.PHONY: clean
clean:  ## Remove all environments and everything that was built
	rm -rf $(VENV) $(VENV2) $(OLDEST) $(LATEST) $(AUDIT) $(SITE) site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info

# mmcv is compiled here, so a compiler and Python's headers are needed; say so before anything is downloaded.
define check_machine
command -v $(PYTHON) >/dev/null \
    || { echo 'error: there is no $(PYTHON); install Python 3.10 to 3.12, or name one: make PYTHON=...' >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
    || { echo "error: $$($(PYTHON) --version) is not one of 3.10 to 3.12; name another: make PYTHON=..." >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
    || { echo 'error: $(PYTHON) cannot make virtual environments (Debian: install python3-venv)' >&2; exit 1; }; \
$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
    || { echo 'error: the headers of $(PYTHON) are missing (Debian: install python3-dev)' >&2; exit 1; }; \
command -v c++ >/dev/null \
    || { echo 'error: there is no C++ compiler; mmcv needs one (Debian: install g++)' >&2; exit 1; }
endef

# The flags of Python's own build, without its debug information: that takes as long as all the rest.
FLAGS := -fwrapv -O3 -DNDEBUG -g0
COMPILE := MMCV_WITH_OPS=1 MAX_JOBS=$(JOBS) CFLAGS='$(FLAGS)' CXXFLAGS='$(FLAGS)'

# mmcv's operators fit the torch that they were compiled with, which the name of the wheel does not tell: one cache each.
# $(call compile_mmcv,FOLDER,WORD): WORD names the mmcv for pip.
define compile_mmcv
command -v nvcc >/dev/null || export CUDA_VISIBLE_DEVICES=; export $(COMPILE); python=$(1)/bin/python; \
cache=; if folder=$$($$python -m pip cache dir 2>/dev/null); then \
    cache="--cache-dir=$$folder/torch-$$($$python -c 'import torch; print(torch.__version__)')"; fi; \
$$python -m pip install -q --no-deps --no-build-isolation $${cache:+"$$cache"} $(2)
endef

# The same arguments, once all hosts are there: where torch has changed since, pip takes the mmcv that it finds for the right one.
define fit_mmcv
$(1)/bin/python -c 'import torch, mmcv._ext' 2>/dev/null || { \
    echo '==> mmcv was compiled for another torch: once more'; $(call compile_mmcv,$(1),--force-reinstall $(2)); \
    $(1)/bin/python -c 'import torch, mmcv._ext'; }
endef

# $(call environment,TARGET,FOLDER,LOCK,NAME): the rules that set up one environment.
define environment
.PHONY: $(1)
$(1): $(2)/.done/package-$(call hash,$(LOCKS) $(PACKAGE_FILES)) \
      $(2)/.done/dev-$(call hash,$(LOCKS) requirements/dev.txt)

$(2)/.done/venv:
	@$$(check_machine)
	@echo '==> [1/5] virtual environment $(2) ($(4))'
	@$(PYTHON) -m venv --clear $(2)
	@$(2)/bin/python -m pip install -q "$$$$(grep '^pip==' requirements/build.txt)"
	@mkdir -p $(2)/.done && touch $$@

$(2)/.done/torch-$(call hash,$(LOCKS)): $(2)/.done/venv
	@echo '==> [2/5] torch and build tools'
	@$(2)/bin/python -m pip install -r requirements/build.txt -c requirements/common.txt "$$$$(grep '^torch==' $(3))"
	@touch $$@

$(2)/.done/hosts-$(call hash,$(LOCKS)): $(2)/.done/torch-$(call hash,$(LOCKS))
	@echo '==> [3/5] host packages ($(4)). The first time on a machine, this compiles the C++ operators of mmcv:'
	@echo '          about 8 minutes on 2 cores, with hardly any output. Later the result comes from the cache of pip.'
	@$$(call compile_mmcv,$(2),"$$$$(grep -hE '^(onedl-)?mmcv==' $(3) requirements/forks.txt | head -1)")
	@noise='^(Looking|Collecting|Ignoring|Processing|Requirement already|  (Using|Preparing|Downloading))'; \
	$(2)/bin/python -m pip install --no-deps --no-build-isolation --progress-bar off -r $(3) \
	    | { grep -vE "$$$$noise" || true; }
	@$$(call fit_mmcv,$(2),"$$$$(grep -hE '^(onedl-)?mmcv==' $(3) requirements/forks.txt | head -1)")
	@touch $$@

$(2)/.done/package-$(call hash,$(LOCKS) $(PACKAGE_FILES)): \
        $(2)/.done/hosts-$(call hash,$(LOCKS))
	@echo '==> [4/5] knet_plugin itself, editable'
	@$(2)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(2)/bin/python -c 'import knet_plugin; print("          knet_plugin", knet_plugin.__version__, "imports")'
	@touch $$@

$(2)/.done/dev-$(call hash,$(LOCKS) requirements/dev.txt): \
        $(2)/.done/hosts-$(call hash,$(LOCKS))
	@echo '==> [5/5] tools for tests and checks'
	@$(2)/bin/python -m pip install -q --no-deps -r requirements/dev.txt
	@touch $$@
endef

$(eval $(call environment,setup,$(VENV),requirements/onedl.txt,maintained forks))
$(eval $(call environment,setup-openmmlab,$(VENV2),requirements/openmmlab.txt,original OpenMMLab))
$(eval $(call environment,setup-oldest,$(OLDEST),requirements/oldest.txt,forks and the oldest torch and numpy))

setup:  ## Make .venv with the maintained forks, or bring it up to date
setup-openmmlab:  ## Make .venv-openmmlab with the original OpenMMLab packages
setup-oldest:  ## Make .venv-oldest with the forks and the oldest torch and numpy

.PHONY: setup-latest
setup-latest:  ## Make .venv-latest with the newest version of everything
	@$(check_machine)
	@echo '==> virtual environment $(LATEST) with the newest versions; mmcv may be compiled, in about 8 minutes'
	@test -x $(LATEST)/bin/python || $(PYTHON) -m venv $(LATEST)
	@sed -E '/^(-r|#)/d; s/==[^;]*//' requirements/common.txt requirements/forks.txt > $(LATEST)/names.txt
	@$(LATEST)/bin/python -m pip install -q --upgrade torch numpy 'setuptools<81' wheel ninja psutil
	@$(call compile_mmcv,$(LATEST),--upgrade onedl-mmcv)
	@$(LATEST)/bin/python -m pip install -q --upgrade --no-deps --no-build-isolation -r $(LATEST)/names.txt
	@$(call fit_mmcv,$(LATEST),onedl-mmcv)
	@$(LATEST)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(LATEST)/bin/python -m pip install -q --no-deps -r requirements/dev.txt

.PHONY: setup-audit
setup-audit: $(AUDIT)/.done/$(call hash,requirements/audit.txt)
$(AUDIT)/.done/$(call hash,requirements/audit.txt):
	@echo '==> virtual environment $(AUDIT)'
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install -q --no-deps -r requirements/audit.txt
	@mkdir -p $(AUDIT)/.done && touch $@

$(SITE)/.done/$(call hash,requirements/site.txt):
	@echo '==> virtual environment $(SITE)'
	@$(PYTHON) -m venv --clear $(SITE)
	@$(SITE)/bin/python -m pip install -q --no-deps -r requirements/site.txt
	@mkdir -p $(SITE)/.done && touch $@
