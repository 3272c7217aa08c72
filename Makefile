# Everything a newcomer needs: `make demo` and `make test`. See README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
SOURCES := minet_sdk export kernels training benchmarks tools tests

.PHONY: demo test lint types unit quality wheel clean

demo: $(VENV)/.demo
	$(BIN)/minet-sdk demo --output out/demo --overwrite

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: $(VENV)/.dev
	tools/system_packages.sh
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

# What no test run waits for: quality of the bundled models on every test set. Needs the label maps: LABELS=folder.
# ITK is the folder of BrainT1Slice.png and BrainProtonDensitySlice.png (Debian: insighttoolkit5-examples), an aligned
# noisy pair; without it that column is missing.
QUALITY_PAIRS = $(if $(ITK),\
	--pair "real, ITK slice T1 and PD" "$(ITK)/BrainT1Slice.png" "$(ITK)/BrainProtonDensitySlice.png" \
	--pair "real, ITK slice T1 and PD" "$(ITK)/BrainProtonDensitySlice.png" "$(ITK)/BrainT1Slice.png")
quality: $(VENV)/.dev
	$(BIN)/python benchmarks/quality.py --labels "$(LABELS)" --output benchmarks/results/quality.json $(QUALITY_PAIRS)

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --outdir dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[demo,dicom,nifti,train,export,dev]'
	$(PIP) install --no-deps --constraint constraints.txt fastmri
	touch $@

clean:
	rm -rf $(VENV) out dist build *.egg-info
