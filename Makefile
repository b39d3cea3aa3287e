# make help lists what there is. PYTHON names the interpreter that makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help setup lock quickstart check test soak mutants bench bench-levers bench-sizes bench-training bench-inference bench-predict bench-accelerator bench-overhead bench-data bench-bursts bench-data-quality bench-shortcuts bench-more-images bench-next-images bench-scale lint format demo review viz lineage mlflow mlflow-replay prune clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv does not read pip's settings, so it gets them as variables of its own. pip lists those of the environment first.
define UV_SETTINGS
BEGIN {
    FS = "='|'$$"
    name["index-url"] = "DEFAULT_INDEX"; name["extra-index-url"] = "INDEX"; name["find-links"] = "FIND_LINKS"
    name["constraint"] = "CONSTRAINT"; name["trusted-host"] = "INSECURE_HOST"; name["no-index"] = "NO_INDEX"
    print "export UV_INDEX_STRATEGY=unsafe-best-match"
}
!/^(:env:|global|install)\./ { next }
{ sub(/^.*\./, "", $$1); gsub(/\\n/, " ", $$2); sub(/^ +/, "", $$2) }
seen[$$1]++ { next }
$$1 == "find-links" { gsub(/ +/, ",", $$2) }
$$1 in name { printf "export UV_%s='%s'\n", name[$$1], $$2 }
$$1 == "cert" { printf "export SSL_CERT_FILE='%s'\n", $$2 }
endef
export UV_SETTINGS
WITH_SETTINGS = eval "$$($(BIN)/pip config list | awk "$$UV_SETTINGS")"

# $(call install,PACKAGES) installs with uv, in seconds. Where uv cannot be had or fails, pip installs the same.
PIP := $(BIN)/pip install --quiet --quiet --disable-pip-version-check -c requirements.lock
define install
	@$(WITH_SETTINGS); $(PIP) uv && $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c requirements.lock $(1) || \
		{ echo "uv could not install the packages. pip installs them now, which takes some minutes."; $(PIP) $(1); }
endef

setup: $(INSTALLED) ## Make .venv from the lock file (anew when the lock changes)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@! nvidia-smi >/dev/null 2>&1 || echo "An NVIDIA GPU is here: its libraries come, too."
	$(call install,-e .$$(! nvidia-smi >/dev/null 2>&1 || echo '[gpu]'))
	@touch $@

$(VENV)/.installed-%: $(INSTALLED)
	$(call install,-e '.[$*]')
	@touch $@

.PRECIOUS: $(VENV)/.installed-%
install-%: $(VENV)/.installed-% ## Add what cluster, demo, export, jax or sign needs: make install-export
	@:

lock: ## Lock what pyproject.toml asks for; versions locked before stay where they can
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(WITH_SETTINGS); $(PIP) uv && $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --extra dev \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

quickstart: $(INSTALLED) ## Set up, then train and compare three classifiers on the embedded images
	$(BIN)/kedro run

IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder

# Counting covered lines took a fifth more time on Python 3.11, and less than a tenth on 3.12.
COVERS = $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'

test: $(DEV) ## Set up, then run the tests
	COVERAGE_CORE=sysmon $(BIN)/pytest $(IN_TWO) $$(! $(COVERS) || echo --cov --cov-report=)
	@! $(COVERS) || { echo "Coverage below 85 %:"; $(BIN)/coverage report | awk '/%$$/ && $$NF + 0 < 85'; }
	@echo "Next: make lint, or make quickstart to see the real thing."

soak: $(DEV) ## Kill runs and workers anywhere, start two at once, fill the disk, and list what was lost (an hour)
	$(BIN)/python tests/faults/driver.py --kills 50 --pairs 20 --deaths 10

# Where to plant faults, and what must notice them: make mutants MODULE=data/splits TESTS="tests/data/test_splits.py …"
MODULE ?= evaluation/ranking
TESTS ?= tests/evaluation/test_ranking.py
# TensorFlow hangs in the forks of a process that has used it. For modules that import it: ISOLATION=forkserver
ISOLATION ?= fork
define MUTMUT
[mutmut]
source_paths = src
only_mutate = src/efficientnet_finetuning/$(MODULE).py
also_copy =
    conf
    data/01_raw
process_isolation = $(ISOLATION)
pytest_add_cli_args_test_selection =
    $(TESTS)
endef
export MUTMUT

mutants: $(DEV) ## Plant small faults in a module, one at a time, and list those that its tests miss (minutes)
	@rm -rf mutants; trap 'rm -f setup.cfg' EXIT; echo "$$MUTMUT" | sed '/^    tests/s/ tests/\n    tests/2g' > setup.cfg; \
		$(BIN)/mutmut run --max-children 2; $(BIN)/mutmut results

# What to measure on: make bench BENCH="--set cifar10 --data-dir <TFDS folder> --train train[:5000] --test test[:2000]"
BENCH ?=

bench: $(DEV) ## Measure accuracy against time beside the Keras example, as a table (half an hour)
	$(BIN)/python tests/benchmarks/ladder.py $(BENCH)

bench-levers: $(DEV) ## Measure what each lever of fine-tuning brings, as a table (hours)
	$(BIN)/python tests/benchmarks/levers.py $(BENCH)

bench-sizes: $(DEV) ## Measure accuracy from 10 to 100 images a class beside the Keras example, as a table (hours)
	$(BIN)/python tests/benchmarks/sizes.py $(BENCH)

bench-training: $(DEV) ## Measure training steps and the head's path beside stock Keras, as a table
	$(BIN)/python tests/benchmarks/training.py

bench-overhead: $(DEV) ## Measure what Kedro and the catalog cost beside the same calls in a script
	$(BIN)/python tests/benchmarks/overhead.py

bench-data: $(DEV) ## Measure ingestion, preparation and feeding, as a table
	$(BIN)/python tests/benchmarks/data.py

bench-bursts: $(DEV) ## Measure what bursts on both sides of a cut do to the test score, as a table
	$(BIN)/python tests/benchmarks/bursts.py $(BENCH)

bench-data-quality: $(DEV) ## Measure what the review finds beside cleanlab, where the faults are known
	$(BIN)/python tests/benchmarks/data_quality.py $(BENCH)

bench-shortcuts: $(DEV) ## Measure what is found of planted shortcuts and weak spots, and where there are none
	$(BIN)/python tests/benchmarks/shortcuts_and_weak_spots.py $(BENCH)

bench-more-images: $(DEV) ## Measure whether the learning curve foretells what more images bring (minutes)
	$(BIN)/python tests/benchmarks/more_images.py $(BENCH)

bench-next-images: $(DEV) ## Measure what choosing the images to label brings beside chance (minutes)
	$(BIN)/python tests/benchmarks/next_images.py $(BENCH)

bench-scale: $(DEV) ## Measure large sets, alone and on two workers: seconds, memory, ratios (minutes)
	$(BIN)/python tests/benchmarks/scale.py $(BENCH)

bench-inference: $(DEV) ## Measure the CPU engine against Keras, as a table
	$(BIN)/python tests/benchmarks/inference.py

bench-predict: $(DEV) ## Measure classifying files beside the forward pass and the decoder
	$(BIN)/python tests/benchmarks/predict.py

bench-accelerator: $(DEV) ## Measure B0 at 224 px on this device, with and without XLA and bfloat16, beside timm
	$(BIN)/python tests/benchmarks/accelerator.py $(BENCH)

check: lint ## Lint, and the tests that neither train nor run kedro (about two minutes)
	$(BIN)/pytest $(IN_TWO) -m "not slow"

lint: $(DEV) ## Style, types and architecture
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(DEV) ## Rewrite the code in the project's style
	$(BIN)/ruff format src tests
	$(BIN)/ruff check --fix src tests

# Whose champion answers, and whose labels are looked at: make demo JOB=folder
JOB ?= cifar10_sample

demo: $(DEMO) ## Try the champion on pictures in the browser (127.0.0.1:8501)
	@$(BIN)/python -m efficientnet_finetuning.apps.launch demo $(JOB)

# Yours to keep; elsewhere: make review CORRECTIONS=file
CORRECTIONS ?= data/01_raw/$(JOB)_corrections.csv

review: $(DEMO) ## Look through suspicious labels in the browser and correct them (127.0.0.1:8501)
	@$(BIN)/python -m efficientnet_finetuning.apps.launch review $(JOB) "$(CORRECTIONS)"

viz: $(INSTALLED) ## Show the lineage in the browser (127.0.0.1:4141)
	@echo "Open http://127.0.0.1:4141/?pid=__default__&types=nodes to see the steps, and switch on datasets on the left."
	@$(BIN)/kedro viz run --host 127.0.0.1 --no-browser

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
