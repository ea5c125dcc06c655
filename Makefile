# Sets up what it needs in virtual environments of its own: needs Python 3.10 or newer with venv.
PYTHON ?= python3
VENV := .venv
# The second environment: tflite-runtime and numpy 1, which have no wheels for Python 3.12 and newer.
OLD_VENV := .venv-tflite-runtime
HAS_OLD := $(shell $(PYTHON) -c 'import sys, platform; print(int(sys.version_info < (3, 12) and platform.system() == "Linux"))')

# The third: LiteRT's dispatch to OpenVINO takes exactly these releases of the two (x86-64 Linux and Windows).
DISPATCH_VENV := .venv-openvino-dispatch
DISPATCH := ai-edge-litert==2.3.0 ai-edge-litert-sdk-intel==2.3.0 openvino==2026.3.1

.PHONY: demo test test-dispatch check package clean

demo: $(VENV)/ready
	@$(VENV)/bin/tflite-hal probe
	@echo
	@$(VENV)/bin/tflite-hal run examples/digits_int8.tflite --input examples/digit_7.png --labels examples/digits_labels.txt --mean 0 --std 255 --top 3
	@echo
	@$(VENV)/bin/tflite-hal benchmark examples/digits_int8.tflite

test: $(VENV)/engines $(if $(filter 1,$(HAS_OLD)),$(OLD_VENV)/engines)
	$(VENV)/bin/python -m pytest
ifeq ($(HAS_OLD),1)
	$(OLD_VENV)/bin/python -m pytest
endif

test-dispatch: $(DISPATCH_VENV)/ready
	$(DISPATCH_VENV)/bin/python -m pytest tests/test_openvino.py

check: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy tflite_hal plugins

package: $(VENV)/ready
	$(VENV)/bin/python tests/check_package.py

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[image,dev]'
	@touch $@

$(OLD_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(OLD_VENV)
	$(OLD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[image,dev,tflite-runtime]'
	@touch $@

$(DISPATCH_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DISPATCH_VENV)
	$(DISPATCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[image,dev]' $(DISPATCH)
	@touch $@

# Engines are large and not there for every Python: where one can't be had its tests skip and say so.
%/engines: %/ready
	-$*/bin/python -m pip install --quiet --disable-pip-version-check --only-binary openvino --editable '.[openvino]'
	@touch $@

clean:
	rm -rf $(VENV) $(OLD_VENV) $(DISPATCH_VENV) dist
