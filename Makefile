# make demo    opens the viewer with the sample case and labels it (or leaves demo.png)
# make test    the test suite
# make lint    style, types, import rules, manifest
# make docs    the documentation, into site/
# make bench   speed and memory, one table
#
# make trained          starts the queue of trainings beside all other work; PIN=HEAD moves the next ones
# make trained-status   what is done, running, waiting and failed
# make trained-pause    nothing trains any more (FREEZE=1: without a checkpoint, for a short timing)
# make trained-resume   it goes on
# make trained-retry NAME=…   a failed training is tried again; trained-export: an unfinished one as a model
#
# Each makes .venv and installs what it needs on first use. PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --constraint constraints.txt

# Many containers tell Python not to keep what it compiles; compiling torch anew takes half of a start.
unexport PYTHONDONTWRITEBYTECODE

# The screen: a real one if there is one, else a virtual one. Tests always get a virtual one.
# (Qt's offscreen platform has no OpenGL, and napari draws no images without it.)
XVFB   := xvfb-run -a -s "-screen 0 1600x1000x24"
SCREEN := $(if $(DISPLAY)$(WAYLAND_DISPLAY),,screen)
COMMA  := ,
LINUX  := $(filter Linux,$(shell uname -s))

# The queue needs no environment but the one that it makes for itself.
QUEUE := PYTHONPATH=src $(PYTHON) benchmarks/training_queue.py $(if $(FOLDER),--folder $(FOLDER))

.PHONY: demo test lint style types imports manifest docs bench clean
.PHONY: trained trained-status trained-pause trained-resume trained-retry trained-export
.DELETE_ON_ERROR:

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "napari-covseg needs Python 3.11 or newer; choose one with: make PYTHON=python3.12"; exit 1; }
	@$(if $(LINUX),PYTHON=$(PYTHON) .ci/system-packages python,:)
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp for each set of extras; a larger set stands for the smaller ones in it.
$(VENV)/desktop: EXTRAS := desktop
$(VENV)/test:    EXTRAS := desktop,test
$(VENV)/docs:    EXTRAS := docs
$(VENV)/dev:     EXTRAS := desktop,docs,test,dev
$(VENV)/desktop $(VENV)/test $(VENV)/docs $(VENV)/dev: $(VENV)/made pyproject.toml constraints.txt
	@echo "Installing napari-covseg with $(EXTRAS) into $(VENV) (a few minutes the first time)"
	@$(PIP) --editable ".[$(EXTRAS)]"
	@cd $(VENV) && touch $(subst $(COMMA), ,$(EXTRAS)) $(notdir $@)

system-%:
	@$(if $(LINUX),.ci/system-packages $*,:)

demo: system-$(or $(SCREEN),window) $(VENV)/desktop
ifeq ($(LINUX)$(SCREEN),Linuxscreen)
	$(XVFB) $(BIN)/covseg demo --screenshot demo.png
else
	$(BIN)/covseg demo
endif

test: system-screen $(VENV)/test
	$(if $(LINUX),$(XVFB)) $(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

lint: style types imports manifest

style: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/dev
	$(BIN)/mypy

imports: $(VENV)/dev
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/house.py --check

manifest: system-window $(VENV)/dev
	$(BIN)/npe2 validate src/napari_covseg/napari.yaml

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: system-screen $(VENV)/desktop
	$(if $(LINUX),$(XVFB)) $(BIN)/python benchmarks/speed.py

trained:
	@$(QUEUE) start $(if $(PIN),--pin $(PIN)) $(if $(RESTART),--restart $(RESTART)) $(if $(ADAPT),--adapt) \
	    $(if $(NICE),--nice $(NICE))

trained-pause:
	@$(QUEUE) pause $(if $(FREEZE),--freeze)

trained-resume trained-status:
	@$(QUEUE) $(@:trained-%=%)

trained-retry trained-export:
	@$(QUEUE) $(@:trained-%=%) $(NAME)

clean:
	rm -rf $(VENV) site demo.png
