# `make demo` shows the whole story, `make test` runs the tests. Each makes its own environment in .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
EXAMPLES := examples/node examples/browser

.PHONY: demo test test-slow test-wheel test-transformers5 test-openvino fuzz lint format types models tiny-clip examples bench clean

demo: $(VENV)/ready
	rm -rf $(DEMO) && mkdir -p $(DEMO)
	$(BIN)/python models/draw.py $(DEMO)/photos --classes circle square star heart --per-class 40 --seed 1
	$(BIN)/clip-train $(DEMO)/photos --encoder models/tiny-clip --out $(DEMO)/head.pt
	$(BIN)/clip-export --head $(DEMO)/head.pt -o $(DEMO)/model.onnx
	$(BIN)/clip-infer --selftest $(DEMO)/model.onnx
	cd $(DEMO) && $(CURDIR)/$(BIN)/clip-infer $$(cd $(CURDIR)/$(DEMO) && ls photos/*/* | awk 'NR % 40 == 7')

test: $(VENV)/ready
	$(BIN)/pytest -q -m "not slow"

# Full-size models.
test-slow: $(VENV)/ready
	$(BIN)/pytest -q -m slow

# The wheel with the runtime's dependencies alone: no torch, no transformers.
test-wheel:
	rm -rf build/wheel && $(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install -q --upgrade pip build
	build/wheel/bin/python -m build --wheel --outdir build/wheel/dist .
	build/wheel/bin/pip install -q -c constraints-transformers5.txt "$$(echo build/wheel/dist/*.whl)[cpu,text]" pytest
	! build/wheel/bin/python -c "import torch" 2>/dev/null
	build/wheel/bin/python -m pytest -q tests/toolkit

test-transformers5: .venv5/ready
	.venv5/bin/pytest -q -m "transformers and not slow" tests/export

# The OpenVINO build of ONNX Runtime, which cannot share an environment with the plain one.
test-openvino: .venv-openvino/ready $(VENV)/ready
	rm -rf build/openvino && mkdir -p build/openvino
	$(BIN)/python models/draw.py build/openvino/photos --classes circle square --per-class 10
	$(BIN)/clip-train build/openvino/photos --encoder models/tiny-clip --out build/openvino/head.pt
	$(BIN)/clip-export --head build/openvino/head.pt -o build/openvino/ort.onnx
	$(BIN)/clip-export --head build/openvino/head.pt --ops standard -o build/openvino/standard.onnx
	.venv-openvino/bin/pytest -q tests/openvino

# Seeded mutants of images and model files; minutes.
fuzz: $(VENV)/ready
	$(BIN)/python tests/fuzz/run.py

lint: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/ready
	$(BIN)/mypy

# The built-in demo model, by our own commands.
models: $(VENV)/ready
	rm -rf build/models && mkdir -p build/models
	$(BIN)/python models/draw.py build/models/photos --per-class 80 --seed 2
	$(BIN)/clip-train build/models/photos --encoder models/tiny-clip --out build/models/head.pt
	$(BIN)/clip-export --head build/models/head.pt -o models/demo.onnx

# The encoder beneath it, from nothing: takes most of an hour.
tiny-clip: $(VENV)/ready
	$(BIN)/python models/train_tiny_clip.py --out models/tiny-clip

examples: $(EXAMPLES:%=%/node_modules)

# Install scripts are off (.npmrc): onnxruntime-node's fetches GPU libraries, and the package holds all the CPU needs.
%/node_modules: %/package.json
	cd $* && npm install --no-audit --no-fund
	touch $@

bench: bench/.venv/ready
	bench/.venv/bin/python bench/run.py
	bench/.venv/bin/python bench/zero_shot.py
	bench/.venv/bin/python bench/few_shot.py
	bench/.venv/bin/python bench/search.py

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt -e '.[export,cpu,optimum,parquet,heif,report,tensorboard,search]' pytest ruff mypy
	touch $@

.venv5/ready: pyproject.toml constraints-transformers5.txt
	$(PYTHON) -m venv .venv5
	.venv5/bin/pip install -q --upgrade pip
	.venv5/bin/pip install -q -c constraints-transformers5.txt -e '.[export,cpu,report,tensorboard]' pytest
	touch $@

.venv-openvino/ready: pyproject.toml
	$(PYTHON) -m venv .venv-openvino
	.venv-openvino/bin/pip install -q --upgrade pip
	.venv-openvino/bin/pip install -q -e '.[openvino]' pytest
	touch $@

bench/.venv/ready: pyproject.toml constraints.txt bench/requirements.txt
	$(PYTHON) -m venv bench/.venv
	bench/.venv/bin/pip install -q --upgrade pip
	bench/.venv/bin/pip install -q -c constraints.txt -e '.[export,cpu,optimum,search]' -r bench/requirements.txt
	touch $@

clean:
	rm -rf build $(VENV) .venv5 .venv-openvino bench/.venv
