# make demo: photos cleaned by a real cluster.  make test: every check and every test.  make help: the rest.
# Both set up .venv by themselves; a second time that costs nothing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test every-test check snapshots pictures keys settings metrics catalogue chaos soak parity e2e platforms fuzz audit clean

# The first of these that is new enough, else whatever python3 is, so that the complaint can name it.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$python && exit; \
  done; command -v python3 || echo python3)
VENV := .venv
PY := $(VENV)/bin/python
PARITY := .venv-parity
PLATFORMS := .venv-platforms
# Tests start hundreds of processes: that each of them compiles every module anew would be a quarter of their time.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(PY) -m pip -qq --disable-pip-version-check --no-input install -c constraints.txt

help:  ## this list
	@sed -n 's/^\([a-z0-9]*\):[^#]*## */make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.runtime  ## a real cluster on this machine cleans the sample photos; results in demo-out/
	@$(PY) -m lcq.cli.main demo

test: $(VENV)/.dev  ## everything that check does, and beside it every test but the long ones
	@$(MAKE) --no-print-directory -j 2 check every-test

every-test: $(VENV)/.dev
	@$(PY) -m pytest -n 5 --dist loadfile --no-loadscope-reorder -m "not chaos and not soak and not parity and not e2e and not platforms"

check: $(VENV)/.dev  ## style, types, layers, dead code, and the site of docs/
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(PY) -m vulture
	@$(PY) -m tests.site

snapshots: $(VENV)/.dev  ## write the console's snapshots anew; git diff tests/tui/snapshots shows what that changes
	@LCQ_RENEW_SNAPSHOTS=1 $(PY) -m pytest -q tests/tui/test_snapshots.py

catalogue: $(VENV)/.dev  ## bring the translations (lcq/locale) up to the sources, and compile them
	@$(PY) -m tests.catalogue

pictures: $(VENV)/.dev  ## paint docs/console anew: what the console shows of a cluster that is kept in benchmarks/scene.json.gz
	@$(PY) -m benchmarks.screenshots

keys: $(VENV)/.dev  ## write docs/keys.md anew from the console's table of commands
	@LCQ_RENEW_KEYS=1 $(PY) -m pytest -q tests/tui/test_keys_page.py

settings: $(VENV)/.dev  ## write docs/config.md anew from the fields of the settings
	@LCQ_RENEW_SETTINGS=1 $(PY) -m pytest -q tests/unit/test_config_page.py

metrics: $(VENV)/.dev  ## write docs/metrics.md anew from the table of metrics
	@LCQ_RENEW_METRICS=1 $(PY) -m pytest -q tests/unit/test_metrics.py

pages: $(VENV)/.dev  ## write docs/cli.md anew from the commands, docs/config.md from the settings, docs/keys.md from the console's
	@LCQ_RENEW_PAGES=1 LCQ_RENEW_SETTINGS=1 LCQ_RENEW_KEYS=1 $(PY) -m pytest -q \
	  tests/unit/test_cli_page.py tests/unit/test_config_page.py tests/tui/test_keys_page.py

site: $(VENV)/.dev  ## the pages as a site in build/site/html; check builds it too
	@$(PY) -m tests.site

chaos: $(VENV)/.dev  ## the long tests that kill, freeze and cut
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m chaos --timeout 900 -rsP

soak: $(VENV)/.dev  ## an hour of storms and calms: nothing is lost, nothing grows, no false alarm
	@$(PY) -m pytest -m soak -s

parity: $(VENV)/.dev $(PARITY)/.iopaint $(PARITY)-lama/.lama-cleaner  ## LCQ beside IOPaint 1.6.0 and Lama Cleaner 1.2.5, in venvs of their own
	@$(PY) -m pytest -m parity --timeout 600 tests/parity

e2e: $(VENV)/.e2e .web-app/.unpacked  ## IOPaint's and Lama Cleaner's own web apps in a Chromium, with LCQ behind it; installs the browser where it may
	@if ! command -v "$${LCQ_CHROMIUM:-chromium}" chromium-browser >/dev/null; then \
	  echo "there is no Chromium here: apt-get install chromium" >&2; \
	  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium; } >/dev/null 2>&1 || \
	    echo "which this user or this system may not: install one, or name it, LCQ_CHROMIUM=/path/to/it" >&2; \
	fi
	@$(PY) -m pytest -m e2e -rs --timeout 900 tests/e2e

platforms: $(VENV)/.dev $(PLATFORMS)/.ready  ## the function on RunPod's and Knative's own servers, in a venv of their own
	@$(PY) -m pytest -m platforms --timeout 600 tests/platforms

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.fuzz  ## changed frames, requests, pictures and weight files without end (FUZZ_SECONDS=3600); what is found is in .fuzz
	@$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS)

audit: $(VENV)/.audit  ## known holes in what constraints.txt pins, by the database of PyPI; needs the network
	@$(PY) -m pip_audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off || { \
	  echo "no word on all of them: either holes are told above, or the database could not be asked" \
	    "(\"not found on PyPI\": what answers in its place has no such database)" >&2; exit 1; }

clean:  ## away with all that these commands made
	rm -rf $(VENV) $(PARITY) $(PARITY)-lama $(PLATFORMS) .web-app .fuzz demo-out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(PY):
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$("$(PYTHON)" --version 2>&1) || found="none that runs"; \
	  echo "LCQ needs Python 3.11 or newer, found $$found as $(PYTHON):" \
	    "apt install python3.11 python3.11-venv, or name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  version=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "$(PYTHON) cannot make a virtual environment, its venv is not installed:" \
	    "apt install python$$version-venv" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON) (once, about half a minute)" >&2
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(PY)
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(PY)
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.e2e: $(VENV)/.dev
	@$(PIP_INSTALL) -e '.[e2e]'
	@touch $@

# atheris has wheels for Linux alone: elsewhere the targets are fuzzed blindly.
$(VENV)/.fuzz: $(VENV)/.dev
	@$(PIP_INSTALL) -e '.[fuzz]'
	@touch $@

$(VENV)/.audit: $(VENV)/.dev
	@$(PIP_INSTALL) -e '.[audit]'
	@touch $@

.web-app/.unpacked: tests/parity/constraints.txt tests/parity/lama-cleaner-constraints.txt | $(PY)
	@rm -rf .web-app
	@$(PY) -m pip -qq --disable-pip-version-check --no-input download --no-deps -d .web-app \
	  -c $(firstword $^) -c $(lastword $^) iopaint lama-cleaner
	@for wheel in .web-app/*.whl; do $(PY) -m zipfile -e "$$wheel" .web-app; done
	@touch $@

# A CPU build of torch beside a torchvision that was built for CUDA cannot be imported. An old torchvision can:
# without its compiled part it still has what IOPaint needs to start.
$(PARITY)/.iopaint: tests/parity/constraints.txt | $(PY)
	@echo "setting up $(PARITY) with IOPaint (once, 2 GB and a minute or two)" >&2
	@"$(PYTHON)" -m venv $(PARITY)
	@$(PARITY)/bin/python -m pip -qq --disable-pip-version-check --no-input install -c $< iopaint
	@$(PARITY)/bin/python -c 'import torchvision' 2>/dev/null || \
	  $(PARITY)/bin/python -m pip -qq --disable-pip-version-check --no-input install --no-deps torchvision==0.15.2
	@touch $@

$(PLATFORMS)/.ready: tests/platforms/constraints.txt pyproject.toml | $(PY)
	@echo "setting up $(PLATFORMS) with RunPod's and Knative's servers (once, 500 MB and a minute)" >&2
	@"$(PYTHON)" -m venv $(PLATFORMS)
	@$(PLATFORMS)/bin/python -m pip -qq --disable-pip-version-check --no-input install -c $< -e . runpod func-python
	@touch $@

# Lama Cleaner wants an older diffusers and transformers than any Python of today installs, and needs neither for erase
# models: it is installed without what it asks for, and takes torch, OpenCV and Pillow from the venv beside it.
$(PARITY)-lama/.lama-cleaner: tests/parity/lama-cleaner-constraints.txt $(PARITY)/.iopaint
	@echo "setting up $(PARITY)-lama with Lama Cleaner (once, 50 MB)" >&2
	@"$(PYTHON)" -m venv $(PARITY)-lama
	@$(PARITY)-lama/bin/python -m pip -qq --disable-pip-version-check --no-input install --no-deps -r $<
	@$(abspath $(PARITY))/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(PARITY)-lama/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	@touch $@
