# make demo: the main job.  make test: the quick tests.  make docs: the generated pages of docs/.
# All make .venv from constraints.txt first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.PHONY: demo test test-all fuzz lint types bench docs peers chromium clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agblocks needs Python 3.11 or newer")'
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and by its exact version: an open bound would bring gigabytes of CUDA packages.
	$(RUN)/python -m pip install -q "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(RUN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	touch $@

demo: $(STAMP)
	$(RUN)/python -m agblocks demo -o demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow"

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -q -n $(JOBS) --dist worksteal

fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -q -n $(JOBS) --dist worksteal tests --hypothesis-profile=night -m "not slow"

lint: $(STAMP)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

docs: $(STAMP)
	$(RUN)/python tools/blocks_page.py
	$(RUN)/python tools/adapters_page.py

peers:
	tools/peers.sh

# A browser for the test of the studies' report, from the system's packages.
chromium:
	apt-get install -y --no-install-recommends chromium chromium-driver

bench: $(STAMP)
	$(RUN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo runs build dist
