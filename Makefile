# make help lists what there is. PYTHON names the interpreter that makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test soak bench bench-levers bench-sizes bench-training bench-inference bench-predict bench-accelerator bench-overhead bench-data bench-bursts bench-data-quality bench-shortcuts bench-more-images bench-next-images bench-scale lint format demo review viz lineage mlflow mlflow-replay prune clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv from the lock file (anew when the lock changes)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	@if nvidia-smi >/dev/null 2>&1; then \
		echo "An NVIDIA GPU is here: adding its libraries."; \
		$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock 'tensorflow[and-cuda]'; \
	fi
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

quickstart: $(INSTALLED) ## Set up, then train and compare three classifiers on the embedded images
	$(BIN)/kedro run

test: $(INSTALLED) ## Set up, then run the tests
	$(BIN)/pytest -n 2 --dist loadfile
	@echo "Next: make lint, or make quickstart to see the real thing."

soak: $(INSTALLED) ## Kill runs and workers anywhere, start two at once, fill the disk, and list what was lost (an hour)
	$(BIN)/python tests/faults/driver.py --kills 50 --pairs 20 --deaths 10

# What to measure on: make bench BENCH="--set cifar10 --data-dir <TFDS folder> --train train[:5000] --test test[:2000]"
BENCH ?=

bench: $(INSTALLED) ## Measure accuracy against time beside the Keras example, as a table (half an hour)
	$(BIN)/python tests/benchmarks/ladder.py $(BENCH)

bench-levers: $(INSTALLED) ## Measure what each lever of fine-tuning brings, as a table (hours)
	$(BIN)/python tests/benchmarks/levers.py $(BENCH)

bench-sizes: $(INSTALLED) ## Measure accuracy from 10 to 100 images a class beside the Keras example, as a table (hours)
	$(BIN)/python tests/benchmarks/sizes.py $(BENCH)

bench-training: $(INSTALLED) ## Measure training steps and the head's path beside stock Keras, as a table
	$(BIN)/python tests/benchmarks/training.py

bench-overhead: $(INSTALLED) ## Measure what Kedro and the catalog cost beside the same calls in a script
	$(BIN)/python tests/benchmarks/overhead.py

bench-data: $(INSTALLED) ## Measure ingestion, preparation and feeding, as a table
	$(BIN)/python tests/benchmarks/data.py

bench-bursts: $(INSTALLED) ## Measure what bursts on both sides of a cut do to the test score, as a table
	$(BIN)/python tests/benchmarks/bursts.py $(BENCH)

bench-data-quality: $(INSTALLED) ## Measure what the review finds beside cleanlab, where the faults are known
	$(BIN)/python tests/benchmarks/data_quality.py $(BENCH)

bench-shortcuts: $(INSTALLED) ## Measure what is found of planted shortcuts and weak spots, and where there are none
	$(BIN)/python tests/benchmarks/shortcuts_and_weak_spots.py $(BENCH)

bench-more-images: $(INSTALLED) ## Measure whether the learning curve foretells what more images bring (minutes)
	$(BIN)/python tests/benchmarks/more_images.py $(BENCH)

bench-next-images: $(INSTALLED) ## Measure what choosing the images to label brings beside chance (minutes)
	$(BIN)/python tests/benchmarks/next_images.py $(BENCH)

bench-scale: $(INSTALLED) ## Measure large sets, alone and on two workers: seconds, memory, ratios (minutes)
	$(BIN)/python tests/benchmarks/scale.py $(BENCH)

bench-inference: $(INSTALLED) ## Measure the CPU engine against Keras, as a table
	$(BIN)/python tests/benchmarks/inference.py

bench-predict: $(INSTALLED) ## Measure classifying files beside the forward pass and the decoder
	$(BIN)/python tests/benchmarks/predict.py

bench-accelerator: $(INSTALLED) ## Measure B0 at 224 px on this device, with and without XLA and bfloat16, beside timm
	$(BIN)/python tests/benchmarks/accelerator.py $(BENCH)

lint: $(INSTALLED) ## Style, types and architecture
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Rewrite the code in the project's style
	$(BIN)/ruff format src tests
	$(BIN)/ruff check --fix src tests

# Whose champion answers, and whose labels are looked at: make demo JOB=folder
JOB ?= cifar10_sample

demo: $(INSTALLED) ## Try the champion on pictures in the browser (127.0.0.1:8501)
	@$(BIN)/python -m efficientnet_finetuning.apps.launch demo $(JOB)

# Yours to keep; elsewhere: make review CORRECTIONS=file
CORRECTIONS ?= data/01_raw/$(JOB)_corrections.csv

review: $(INSTALLED) ## Look through suspicious labels in the browser and mend them (127.0.0.1:8501)
	@$(BIN)/python -m efficientnet_finetuning.apps.launch review $(JOB) "$(CORRECTIONS)"

viz: $(INSTALLED) ## Show the lineage in the browser (127.0.0.1:4141)
	$(BIN)/kedro viz run --host 127.0.0.1

lineage: $(INSTALLED) ## Build the lineage as a page of its own, with its pictures, and show it (127.0.0.1:4142)
	$(BIN)/kedro viz build --include-previews
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build 4142

mlflow: $(INSTALLED) ## Show the recorded runs in the browser (127.0.0.1:5000)
	-@$(BIN)/python -m efficientnet_finetuning.running.tracking
	@echo "Open http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
	$(BIN)/mlflow server --host 127.0.0.1 --backend-store-uri sqlite:///data/08_reporting/mlflow/mlflow.db

mlflow-replay: $(INSTALLED) ## Send what earlier runs could not tell MLflow's server
	$(BIN)/python -m efficientnet_finetuning.running.tracking

prune: $(INSTALLED) ## Remove old versions of all artifacts (how many stay: keep_versions in conf/base)
	$(BIN)/python -m efficientnet_finetuning.running.prune

clean: ## Remove the environment and caches; data and models stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build src/*.egg-info
