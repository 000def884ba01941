# make demo   match two photos, no weights needed
# make test   run the tests
# make check  what CI runs beside the tests: ruff, mypy, the wheel
# make gallery  draw the pictures of the docs anew

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO = match-astronaut-hopper.png

.PHONY: demo test check lint types wheel gallery clean

demo: $(VENV)/installed
	$(BIN)/sdcorr match assets/astronaut.png assets/hopper.jpg --recipe sift --out $(DEMO)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

# the pictures of docs/gallery.md and docs/concepts, and the options of docs/commands
gallery: $(VENV)/installed
	$(BIN)/python docs/gallery.py
	$(BIN)/python docs/draw.py
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/write_commands.py

check: lint types wheel

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

# the wheel must work on its own: installed apart, run outside the checkout
wheel: $(VENV)/installed
	rm -rf dist $(VENV)/apart
	$(BIN)/python -m build --wheel --outdir dist
	$(PYTHON) -m venv $(VENV)/apart
	$(VENV)/apart/bin/pip install --quiet --no-deps dist/*.whl
	$(VENV)/apart/bin/pip install --quiet --no-deps -c constraints.txt click
	cd / && $(abspath $(VENV))/apart/bin/sdcorr --help

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,demo]"
	touch $@

clean:
	rm -rf $(VENV) dist
