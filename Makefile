# `make demo` shows the whole story, `make test` runs the tests. Each makes its own environment in .venv first.

PYTHON ?= python3
VENV := .venv
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := $(VENV)/$(SCRIPTS)
DEMO := build/demo
EXAMPLES := examples/node examples/browser

# One process a core, each with one thread: tiny models gain nothing from two. Files stay whole, and with them their fixtures.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile
demo notebooks test test-slow test-openvino test-wheel test-transformers5 test-newest test-oldest test-openclip: export OMP_NUM_THREADS = 1

.PHONY: demo test test-slow test-wheel test-transformers5 test-newest test-oldest test-arm64 test-openvino test-openclip test-scale test-matrix fuzz fuzz-guided lint format types
.PHONY: soak soak-cluster docs notebooks models tiny-clip examples environments dist bench clean

demo: $(VENV)/ready
	rm -rf $(DEMO) && mkdir -p $(DEMO)
	$(BIN)/python models/draw.py $(DEMO)/photos --classes circle square star heart --per-class 40 --seed 1
	$(BIN)/clip-train $(DEMO)/photos --encoder models/tiny-clip --out $(DEMO)/head.pt
	$(BIN)/clip-export --head $(DEMO)/head.pt -o $(DEMO)/model.onnx
	$(BIN)/clip-infer --selftest $(DEMO)/model.onnx
	cd $(DEMO) && $(CURDIR)/$(BIN)/clip-infer $$(cd $(CURDIR)/$(DEMO) && ls photos/*/* | awk 'NR % 40 == 7')

# With npm at hand the examples are tested as well; the last lines say what was left out.
test: $(VENV)/ready
	command -v npm >/dev/null && $(MAKE) examples || true
	$(BIN)/pytest -q -m "not slow and not matrix" $(PARALLEL)

# Full-size models.
test-slow: $(VENV)/ready
	$(BIN)/pytest -q -m slow

# Every encoder family in float32 and int8, in ONNX Runtime's and in standard operators; its text tower and search.
test-matrix: $(VENV)/ready
	$(BIN)/pytest -q -m matrix $(PARALLEL) tests/export/test_families.py

# The wheel with the runtime's dependencies alone: no torch, no transformers.
test-wheel:
	rm -rf build/wheel && $(PYTHON) -m venv build/wheel
	build/wheel/$(SCRIPTS)/pip install -q --upgrade pip build
	build/wheel/$(SCRIPTS)/python -m build --wheel --outdir build/wheel/dist .
	build/wheel/$(SCRIPTS)/pip install -q -c constraints-transformers5.txt "$$(echo build/wheel/dist/*.whl)[cpu,text,serve]" --group test
	! build/wheel/$(SCRIPTS)/python -c "import torch" 2>/dev/null
	build/wheel/$(SCRIPTS)/python -m pytest -q $(PARALLEL) tests/toolkit

test-transformers5: .venv5/ready
	.venv5/$(SCRIPTS)/pytest -q -m "transformers and not slow and not matrix" $(PARALLEL) tests/export
	.venv5/$(SCRIPTS)/pytest -q tests/toolkit/images

# OpenCLIP's towers of timm's, beside open_clip itself: they are skipped elsewhere.
test-openclip: .venv-openclip/ready
	.venv-openclip/$(SCRIPTS)/pytest -q tests/export/encoders/test_open_clip_timm.py
	.venv-openclip/$(SCRIPTS)/pytest -q -m matrix $(PARALLEL) tests/export/test_families.py -k "mobileclip or eva02 or pe-core"

# The newest release of every dependency, whatever the constraints say. Optimum would hold transformers back.
test-newest: .venv-newest/ready
	.venv-newest/$(SCRIPTS)/pytest -q -m "not slow and not matrix" $(PARALLEL) tests/toolkit tests/export

# The oldest release of every dependency of the runtime that pyproject.toml promises.
test-oldest: .venv-oldest/ready
	.venv-oldest/$(SCRIPTS)/pytest -q $(PARALLEL) tests/toolkit

# The runtime on 64-bit Arm, emulated; as root, with qemu-user-static and debootstrap; 10 to 15 minutes.
test-arm64: $(VENV)/ready
	tests/arm64/run.sh $(BIN)

# The OpenVINO build of ONNX Runtime, which cannot share an environment with the plain one.
test-openvino: .venv-openvino/ready $(VENV)/ready
	rm -rf build/openvino && mkdir -p build/openvino
	$(BIN)/python models/draw.py build/openvino/photos --classes circle square --per-class 10
	$(BIN)/clip-train build/openvino/photos --encoder models/tiny-clip --out build/openvino/head.pt
	$(BIN)/clip-export --head build/openvino/head.pt -o build/openvino/ort.onnx
	$(BIN)/clip-export --head build/openvino/head.pt --ops standard -o build/openvino/standard.onnx
	.venv-openvino/$(SCRIPTS)/pytest -q tests/openvino

# Engines beyond one machine, on this one: a Ray cluster of several nodes, Daft, Spark (which needs Java), S3, LanceDB; minutes.
test-scale: .venv-scale/ready
	.venv-scale/$(SCRIPTS)/pytest -q tests/scale

# Seeded mutants of images and model files; minutes.
fuzz: $(VENV)/ready
	$(BIN)/python tests/fuzz/run.py

# A hundred thousand requests, hostile ones, a full queue, SIGTERM and reloads, on real processes; ten minutes.
soak: $(VENV)/ready .venv-soak/ready
	$(BIN)/python tests/soak/run.py --schemathesis .venv-soak/$(SCRIPTS)/schemathesis

# 20,500 pictures on a Ray cluster whose driver and node are killed, and 2,000 by every engine; Spark needs Java.
soak-cluster: .venv-scale/ready
	.venv-scale/$(SCRIPTS)/python -W ignore tests/soak/cluster.py

# Inputs that reach new code in three readers of foreign files; ten minutes each. They are kept in build/fuzz.
fuzz-guided: $(VENV)/ready
	$(BIN)/pip install -q -c constraints.txt --group fuzz
	for reader in wire document part; do $(BIN)/python tests/fuzz/guided.py $$reader || exit 1; done

lint: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/ready
	$(BIN)/mypy

# The site of the documentation, in build/site. A broken link or an unknown name is an error.
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Every cell runs; nothing is written into the notebooks.
notebooks: $(VENV)/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -q --nbmake notebooks

dist: $(VENV)/ready
	rm -rf dist && $(BIN)/python -m build --outdir dist .

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

# All that CI needs; `make -j` builds them side by side.
environments: $(VENV)/ready .venv5/ready .venv-openvino/ready examples

# tritonclient is for tests of its protobuf classes; with what it depends on it would hold other packages back.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt -e '.[export,cpu,optimum,parquet,heif,dicom,video,report,tensorboard,search,serve,app,remote,skops,sign]' --group dev
	$(BIN)/pip install -q -c constraints.txt --no-deps tritonclient python-rapidjson
	touch $@

.venv5/ready: pyproject.toml constraints-transformers5.txt
	$(PYTHON) -m venv .venv5
	.venv5/$(SCRIPTS)/python -m pip install -q --upgrade pip
	.venv5/$(SCRIPTS)/pip install -q -c constraints-transformers5.txt -e '.[export,cpu,report,tensorboard]' --group transformers5
	touch $@

.venv-newest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-newest
	.venv-newest/$(SCRIPTS)/python -m pip install -q --upgrade pip
	.venv-newest/$(SCRIPTS)/pip install -q -e '.[export,cpu,parquet,heif,dicom,video,report,tensorboard,search,serve,skops]' --group test
	touch $@

.venv-oldest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/$(SCRIPTS)/python -m pip install -q --upgrade pip uv
	.venv-oldest/$(SCRIPTS)/uv pip install -q --python .venv-oldest --resolution lowest-direct -e '.[cpu,text,parquet,search,serve]' 'pytest>=9' 'pytest-xdist>=3.8'
	touch $@

.venv-openvino/ready: pyproject.toml
	$(PYTHON) -m venv .venv-openvino
	.venv-openvino/$(SCRIPTS)/python -m pip install -q --upgrade pip
	.venv-openvino/$(SCRIPTS)/pip install -q -e '.[openvino]' --group test
	touch $@

.venv-openclip/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-openclip
	.venv-openclip/$(SCRIPTS)/python -m pip install -q --upgrade pip
	.venv-openclip/$(SCRIPTS)/pip install -q -c constraints.txt -e '.[export,cpu,search,openclip]' --group test
	touch $@

.venv-scale/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-scale
	.venv-scale/$(SCRIPTS)/python -m pip install -q --upgrade pip
	.venv-scale/$(SCRIPTS)/pip install -q -c constraints.txt -e '.[cpu,parquet,ray,daft,spark,remote,lance]' --group scale
	touch $@

.venv-soak/ready: pyproject.toml
	$(PYTHON) -m venv .venv-soak
	.venv-soak/$(SCRIPTS)/python -m pip install -q --upgrade pip
	.venv-soak/$(SCRIPTS)/pip install -q --group soak
	touch $@

bench/.venv/ready: pyproject.toml constraints.txt bench/requirements.txt
	$(PYTHON) -m venv bench/.venv
	bench/.venv/bin/pip install -q --upgrade pip
	bench/.venv/bin/pip install -q -c constraints.txt -e '.[export,cpu,optimum,search,serve,openclip]' -r bench/requirements.txt
	touch $@

clean:
	rm -rf build dist $(VENV) .venv5 .venv-newest .venv-oldest .venv-openvino .venv-openclip .venv-scale .venv-soak bench/.venv
