# `make lab`, `make test`, `make gpu` and `make notebooks` each do their own set-up: a virtual environment in .venv, installed once
# and again only when requirements.txt or pyproject.toml changes (mnist_gpu/install.py).
PYTHON ?= python3
NOTEBOOKS ?= notebooks/*.ipynb
BIN := .venv/bin
READY := .venv/.ready

.PHONY: lab test gpu notebooks editions play site lint

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m mnist_gpu.install
	@touch $@

# Opens chapter 01; without a display it prints the address. (Given the notebook as an argument, JupyterLab would show the
# folder notebooks/ alone, and print an address that does not lead to it.) It listens on localhost only, with its token on.
# As root, which is usual in containers, it has to be told that this is meant. The settings in .jupyter/overrides.json are
# defaults, below the reader's own: without them JupyterLab begins by asking, over a corner of the page, whether to show news
# (--LabApp.news_url=None does not prevent that), and looks for updates, where the course is to need no network.
lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.ip=localhost --LabApp.default_url=/lab/tree/notebooks/01_detect_the_gpu.ipynb \
	    "--LabApp.app_settings_dir=$(CURDIR)/.jupyter" $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB)

test: $(READY)
	$(BIN)/python -m pytest

# Everything that only a GPU can show, in ten minutes, into gpu-results/. Where PyTorch is installed already, and .venv is
# not, it is used as it is: nothing is installed then, and what needs JupyterLab, say, fails by name where that is missing.
gpu:
	@if [ ! -e $(READY) ] && $(PYTHON) -c 'import torch, torchvision, matplotlib, tqdm, psutil' 2>/dev/null; \
	then $(PYTHON) -m mnist_gpu gpu $(GPU); \
	else $(MAKE) --no-print-directory $(READY) && $(BIN)/python -m mnist_gpu gpu $(GPU); fi

# Runs every notebook, or those in NOTEBOOKS, from the top and stores its outputs, in the form that tests/test_canonical.py asks for.
notebooks: $(READY)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)
	$(BIN)/ruff format notebooks/*.ipynb
	$(BIN)/python .ci/canonical_notebooks.py
	$(BIN)/python translations/editions.py

# Makes the translated editions from translations/, with the code and the outputs of the English notebooks.
editions:
	$(PYTHON) translations/editions.py

# Shows the course's folder to this computer's browser, for notebooks/play: a page that was opened as a file may not fetch
# the images. Nothing is installed; PORT=8001 where 8000 is taken.
PORT ?= 8000
play:
	@printf 'http://127.0.0.1:$(PORT)/%s (Ctrl-C ends it)\n' $(wildcard notebooks/play/train_it_here.html notebooks/*/play/train_it_here.html)
	@$(PYTHON) -m http.server --bind 127.0.0.1 $(PORT)

# The web edition, from the notebooks as they are stored: nothing is executed, and the pages need no network.
site: .venv/.site
	$(BIN)/python site/build.py

.venv/.site: $(READY) site/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r site/requirements.txt
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
