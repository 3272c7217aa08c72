# Everything a newcomer needs: `make demo` and `make test`. See README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --no-compile --constraint constraints.txt
TENSORRT := 10.16.1.11 11.4.0.106
SOURCES := minet_sdk export kernels training benchmarks tools tests setup.py
NATIVE := kernels/native/libminet.so

# What is imported is compiled once, not by every process anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types unit system long slow sanitize kernels kernels-check bench series quality precision wheel clean

demo: $(VENV)/.demo
	$(BIN)/minet-sdk demo --output out/demo --overwrite

# Side by side: what is installed, then the type checker, which keeps one core busy while the tests wait for
# subprocesses. Two steps, since make would not see the engine that an install in the same step has compiled.
test: $(VENV)/bin/python
	$(MAKE) --jobs 3 $(VENV)/.dev $(VENV)/.tensorrt system
	$(MAKE) --jobs 3 --output-sync=target lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: $(VENV)/.dev $(VENV)/.tensorrt system $(NATIVE)
	@# The wheel's tests take longest, so one worker starts with them.
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/test_packaging.py tests

# Debian packages that the tests use, where one is missing.
system:
	tools/system_packages.sh

# Most of the tests' time: engines, kernels, exports, training runs, benchmarks.
long: $(VENV)/.dev $(VENV)/.tensorrt system $(NATIVE)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile -m 'long and not slow and not gpu'

# Tests that take minutes; run them when you touch what they cover.
slow: $(VENV)/.dev $(VENV)/.tensorrt
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

# The native engine, when its sources are newer; installing compiles it the first time.
$(NATIVE): $(wildcard kernels/native/src/* kernels/native/include/*) kernels/native/build.py | $(VENV)/.dev system
	$(BIN)/python kernels/native/build.py

# Damaged plans under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
sanitize: $(VENV)/.dev $(NATIVE)
	for sanitizer in address thread; do \
		MINET_SANITIZER=$$sanitizer $(BIN)/pytest tests/kernels/native/test_library.py -k damaged_plans || exit 1; \
	done

# The shipped PTX from kernels/csrc, and whether it still is what the sources give and every architecture assembles.
kernels: $(VENV)/.dev
	$(BIN)/python -m minet_sdk.kernels.build

kernels-check: $(VENV)/.dev
	$(BIN)/python -m minet_sdk.kernels.build --check

# The paper's comparison: trains what is not trained yet, tests what is not tested yet, over as many sittings as it takes;
# what is in benchmarks/results/comparison is not done again. Needs the label maps: LABELS=folder. ITK is the folder of
# BrainT1Slice.png and BrainProtonDensitySlice.png (Debian: insighttoolkit5-examples), an aligned noisy pair; without it
# that column is missing. ATLAS is the folder resources/CITI168 of the Python package hippunfold 0.5.11, T1 and T2 of the
# CIT168 average. HOURS starts no training after so long.
QUALITY_PAIRS = $(if $(ITK),\
	--pair "real, ITK slice T1 and PD" "$(ITK)/BrainT1Slice.png" "$(ITK)/BrainProtonDensitySlice.png" \
	--pair "real, ITK slice T1 and PD" "$(ITK)/BrainProtonDensitySlice.png" "$(ITK)/BrainT1Slice.png")
quality: $(VENV)/.dev $(NATIVE)
	$(BIN)/python benchmarks/comparison.py --labels "$(LABELS)" --work out/comparison $(if $(HOURS),--hours $(HOURS)) \
		$(QUALITY_PAIRS) $(if $(ATLAS),--atlas "$(ATLAS)")
	$(BIN)/python benchmarks/reference_worth.py --labels "$(LABELS)" $(QUALITY_PAIRS) $(if $(ATLAS),--atlas "$(ATLAS)")
	$(BIN)/python benchmarks/readme.py

# Latency against every peer, 45 minutes on a quiet machine; ONLY=paper-320,linearity runs some sections. The README's
# tables are made from benchmarks/results/latency.json (OUTPUT=..., on the machine that it is of).
OUTPUT ?= out/latency/latency.json
bench: $(VENV)/.dev $(NATIVE)
	$(BIN)/python benchmarks/latency.py --output "$(OUTPUT)" $(if $(ONLY),--only $(ONLY))

# What a whole DICOM series costs over the inference of its slices.
series: $(VENV)/.dev $(NATIVE)
	$(BIN)/python benchmarks/series.py --output benchmarks/results/series.json

# What each precision costs; LABELS=folder adds synthetic slices to the choice of the calibration.
precision: $(VENV)/.dev
	$(BIN)/python benchmarks/precision.py --output benchmarks/results/precision.json $(if $(LABELS),--labels "$(LABELS)")

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --outdir dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[demo]'
	touch $@

# pip would compile everything that it installs, on one core; each module is compiled when it is first imported instead.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[demo,dicom,nifti,train,export,tensorrt-rtx,openvino,dev]'
	$(INSTALL) --no-deps fastmri
	touch $@

# The Python half of two TensorRT versions, each in a folder of its own: they share one import name.
$(VENV)/.tensorrt: Makefile | $(VENV)/bin/python
	for version in $(TENSORRT); do \
		$(PIP) install --no-deps --upgrade --target $(VENV)/tensorrt/$$version tensorrt-cu13-bindings==$$version || exit 1; \
	done
	touch $@

clean:
	rm -rf $(VENV) out dist build *.egg-info
