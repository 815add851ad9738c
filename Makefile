# make demo | test | check | docs | nightly | gpu | world | setup | clean
#
# A bare machine needs Python 3.11+ and make; everything else goes into $(VENV).
# Another interpreter:   make test PYTHON=python3.12
# Another torch build:   install it into $(VENV) first, or set pip's own PIP_INDEX_URL for `make setup`.

PYTHON ?= python3
VENV ?= .venv
DATA ?= data/car-racing-state
RUN ?= runs/car-racing-state
WORLD ?= $(RUN)/world/car-racing-state

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --progress-bar off
STAMP := $(VENV)/.worldsim-setup

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup docs test check nightly format demo world collect train trust eval rows pendulum latent scenery wheel clean

help:
	@echo 'make demo     set up; drive the bundled world; write demo.mp4, real beside dream'
	@echo 'make test     set up; pass the tests'
	@echo 'make check    set up; ruff, pyright, pytest'
	@echo 'make nightly  set up; every promise of docs/explanation/reliability.md in full: hours'
	@echo 'make gpu      set up; on a CUDA machine: tests, speed, training steps, NCCL: ten minutes'
	@echo 'make format   let ruff mend style and layout'
	@echo 'make docs     the manual as a site in site/; no warning, no dead link'
	@echo 'make world    car-racing-state whole: collect, train, calibrate, eval, rows'
	@echo 'make pendulum the same for the quick world (docs/reference/worlds/pendulum.md)'
	@echo 'make scenery  CarRacing in words, three hours (docs/how-to/words.md)'
	@echo 'make latent   a world of eight codes from video alone, in minutes'
	@echo 'make wheel    build the wheel into dist/'
	@echo 'make clean    remove builds and caches (not data, runs or $(VENV))'

# --- Setting up: once, and again when the dependencies change ------------------------------------

setup: $(STAMP)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "worldsim needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`." \
	       "Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: it is the large one, and a failure there should look like one.
$(STAMP): pyproject.toml constraints.txt | $(PY)
	$(PIP) -q -c constraints.txt setuptools wheel
	$(PIP) -c constraints.txt torch
	$(PIP) -q -c constraints.txt --no-build-isolation -e '.[dev,box2d]'
	@touch $@

# --- Checking ------------------------------------------------------------------------------------

test: setup
	$(PY) -m pytest -q -n 2

check: setup
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m pyright
	$(PY) -m pytest -q -n 2

# Cut short, it goes on: rows that passed at this commit are not tried again.
nightly: setup
	$(PY) -m tests.reliability.nightly

# Every part has a process and a limit of its own; what is missing is told in its place.
.PHONY: gpu
gpu: setup
	$(PY) -m benchmarks.gpu

format: setup
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# --- Showing and making --------------------------------------------------------------------------

demo: setup
	$(PY) -m worldsim demo

# Training goes on where it was killed, so `make world` may be typed again at any time.
# CarRacing with what the car feels: it goes on from `car-racing` (docs/reference/worlds/car-racing-state.md).
world: collect train trust eval rows

collect: setup
	$(PY) -m worldsim collect car-racing-state --folder $(DATA)
train: setup
	$(PY) -m worldsim train $(DATA) --recipe car-racing-state --begin car-racing --preset small --num-steps 2 \
	  --run $(RUN) --out $(WORLD) --no-card --overwrite
trust: setup
	$(PY) -m worldsim calibrate --data $(DATA) --world $(WORLD) --in-place
eval: setup
	$(PY) -m worldsim eval --data $(DATA) --run $(RUN) --world $(WORLD) --in-place \
	  --noise-floor benchmarks/results/noise-floor-car-racing.json \
	  --offtrack-reference benchmarks/results/offtrack-reference-car-racing.json
rows: setup
	$(PY) -m benchmarks.fidelity --rows --world $(WORLD)

# The quick world: 32x32, a million weights (docs/reference/worlds/pendulum.md).
pendulum: setup
	$(PY) -m worldsim collect pendulum
	$(PY) -m worldsim train data/pendulum --run runs/pendulum --preset tiny --steps 7500 \
	  --out worlds/pendulum --overwrite

# CarRacing in words: every ground, light and weather (docs/how-to/words.md).
scenery: setup
	$(PY) -m worldsim collect scenery
	$(PY) -m worldsim train data/scenery --recipe scenery --preset small --channels 32 --dim 192 --depth 4 \
	  --heads 3 --kv-heads 1 --patch 1 1 --context 4 --run runs/scenery --out worlds/scenery --overwrite

# A world of eight codes from video without actions (docs/how-to/video-without-actions.md).
latent: setup
	$(PY) -m worldsim collect pendulum --folder data/pendulum-video --episodes 40
	$(PY) -m worldsim train data/pendulum-video --ignore-actions --latent-actions --preset tiny \
	  --steps 3000 --run runs/pendulum-codes --out worlds/pendulum-codes --no-card --overwrite

docs: setup
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

wheel: setup
	$(PY) -m build --no-isolation --wheel

clean:
	rm -rf build dist worldsim.egg-info .pytest_cache .ruff_cache .hypothesis
	find worldsim envs agents benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
