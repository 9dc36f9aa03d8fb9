# A new machine needs only make demo and make test; each first installs what is missing.
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin
DEMO := demo
# Processes of the tests, one processor each. Files run in the order of their paths, as the slowest are not at the end.
PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo look test test-at-once test-oldest lint docs check-pages docs-pages docs-pictures docs-screenshots format bench bench-training bench-check bench-diagnosis bench-failures mutate clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@# torch alone and first: its pin has a CPU build, any other request fetches gigabytes.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# With two threads that wait for each other it took three times as long on a busy machine.
demo: export OMP_NUM_THREADS = 1
demo: $(VENV)/installed ## Train a network until it collapses, capture it into all sinks, find step and layer
	rm -rf $(DEMO)
	$(BIN)/python examples/simulate_diffraction.py $(DEMO)/diffraction.npz
	$(BIN)/python examples/train_until_collapse.py $(DEMO)/diffraction.npz $(DEMO)/checkpoints
	$(BIN)/fno-telemetry capture --input $(DEMO)/diffraction.npz --output $(DEMO)/fno --batch-size 4 \
	    --checkpoint '$(DEMO)/checkpoints/*.ckpt' --sink json,tensorboard,wandb --wandb-mode offline --diagnose
	$(BIN)/fno-telemetry view $(DEMO)/fno/activation_report.step30.json
	$(BIN)/fno-telemetry compare $(DEMO)/fno --fail-on never
	$(BIN)/fno-telemetry view --wandb $(DEMO)/fno
	$(BIN)/fno-telemetry diagnose $(DEMO)/checkpoints/history.jsonl --fail-on never --html $(DEMO)/page.html
	@echo "Look further:"
	@echo "  make look    that page in a browser: which layer broke, and when"
	@echo "  $(BIN)/fno-telemetry view --tensorboard $(DEMO)/fno    the real TensorBoard, until Ctrl-C"
	@echo "  $(BIN)/fno-telemetry map --input $(DEMO)/diffraction.npz    how the network was understood"
	@echo "  less $(DEMO)/fno/activation_report.step30.json    every number"

look: ## Open the page of `make demo` in a browser: which layer broke, and when
	@test -f $(DEMO)/page.html || { echo "no $(DEMO)/page.html yet: run make demo first"; exit 2; }
	@$(PYTHON) -c 'import pathlib, sys, webbrowser; page = pathlib.Path(sys.argv[1]).resolve(); print(page); \
	    sys.exit(not webbrowser.open(page.as_uri()))' "$(DEMO)/page.html" \
	    || echo "no browser was found here: open this file in yours"

test: $(VENV)/installed ## Run all tests
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed ## Build the documentation as a site, which opens without a network: site/index.html
	$(BIN)/zensical build --clean --strict

check-pages: docs ## Read the site and a page of every kind with an accessibility checker (chromium and npm)
	$(BIN)/python scripts/check_pages.py

docs-pages: $(VENV)/installed ## Write the pages of the documentation that are made from the code
	$(BIN)/python docs/generators/rules_page.py
	$(BIN)/python docs/generators/help_page.py
	$(BIN)/python docs/generators/report_format_page.py

docs-screenshots: $(VENV)/installed ## Take the screenshots of README and the documentation (chromium), from make demo
	$(BIN)/python docs/generators/screenshots.py

docs-pictures: $(VENV)/installed ## Draw the pictures of README and docs/pictures.md
	$(BIN)/python docs/generators/example_pictures.py

format: $(VENV)/installed ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-at-once: $(VENV)/installed ## Kill 100 captures and start 20 pairs at once, ten minutes
	$(BIN)/python benchmarks/captures_at_once.py

test-oldest: ## Run a part of the tests with the oldest versions that are promised, in $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt \
	    -e '.[all]' hypothesis jsonschema pytest pytest-xdist sybil
	$(OLDEST)/bin/python -m pytest -n $(PROCESSES) --dist loadfile tests/test_report.py tests/test_capture.py \
	    tests/cli/test_capture.py tests/cli/test_view.py tests/cli/test_help_and_completion.py \
	    tests/cli/test_diagnose.py tests/comparison tests/sinks/tensorboard/test_sink.py \
	    tests/sinks/wandb/test_offline.py tests/mapping/operators/test_neuralop.py

bench: $(VENV)/installed ## Measure what a capture costs and what comparing many reports does; write docs/performance.md
	$(BIN)/python benchmarks/capture_cost.py --write
	$(BIN)/python benchmarks/compare_cost.py

bench-training: $(VENV)/installed ## Measure what watching costs a training loop, into docs/overhead.md
	$(BIN)/python benchmarks/training_cost.py --write

bench-check: $(VENV)/installed ## Compare the cost of a capture with that of the last `make bench`
	$(BIN)/python benchmarks/capture_cost.py --runs 3 --check

bench-diagnosis: $(VENV)/installed ## Plant every fault into every family of networks; write the tables of docs/diagnosis.md
	$(BIN)/python benchmarks/diagnosis_recall.py --write docs/diagnosis.md

bench-failures: $(VENV)/installed ## Train networks that fail by accident, and lose bands in known blocks; write docs/diagnosis.md
	$(BIN)/python -m benchmarks.natural_failures judge --write docs/diagnosis.md
	$(BIN)/python benchmarks/lost_bands.py --write docs/diagnosis.md

mutate: $(VENV)/installed ## Run the command and the readers on thousands of damaged and hostile files
	$(BIN)/python benchmarks/mutated_reports.py
	$(BIN)/python benchmarks/mutated_files.py

clean: ## Remove what was made here
	rm -rf $(VENV) $(OLDEST) $(DEMO) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
