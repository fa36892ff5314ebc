# Requires Python >= 3.11 and make, nothing else. To use another Python: make demo PYTHON=python3.12
PYTHON ?= python3
ARGS ?=
SEED ?=
SPECS ?=
MINUTES ?=

BIN := .venv/bin
TOOLS := build/tools/bin
CHART := charts/artifact-repository-controller
DEVTOOL := $(BIN)/python -m devcluster tool
LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help install demo unit test bench campaign lint linters tools sbom audit site lock clean clean-cache

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(BIN)/.project ## Create .venv with pinned dependencies and this project

demo: install ## Start a cluster and the operator in it, until Ctrl-C (ARGS: --tour plays its steps, --once ends it when all objects are Ready, --kubernetes=oldest, --node: on a real node, root only)
	@exec $(BIN)/python -m devcluster demo $(ARGS)

unit: install ## Run the unit tests: fast, without servers (ARGS: further arguments of pytest)
	$(BIN)/python -m pytest tests/unit $(ARGS)

test: lint tools ## Run lint and all tests, with coverage (ARGS: further arguments of pytest, --no-cov with a selection)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --cov --cov-report=term $(ARGS)

bench: tools ## Measure speed, CPU and memory (ARGS=--short takes a minute; ARGS="--peer PROGRAM" compares with another operator)
	@exec $(BIN)/python -m tests.benchmark $(ARGS)

campaign: tools ## Run random faults, and hostile objects, registries and neighbours (SEED=N, SPECS=N, MINUTES=N)
	@mkdir -p build
	FAULTS=full CAMPAIGN_SEED=$(SEED) CAMPAIGN_SPECS=$(SPECS) CAMPAIGN_MINUTES=$(MINUTES) \
		$(BIN)/python -m pytest -m campaign --basetemp=build/campaign $(addprefix --hypothesis-seed=,$(SEED)) $(ARGS)

lint: install ## Check style, types, import contracts, spelling, dependencies, shell scripts and the package's metadata
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry controller
	$(BIN)/codespell
	$(BIN)/shellcheck .ci/run devcluster/node/scripts/*.sh manifests/kind/registry.sh
	$(BIN)/pyroma --min=9 .

linters: site ## Check workflows, chart, alerts, Dockerfile and site by further linters, which are built or installed first
	$(DEVTOOL) actionlint
	$(TOOLS)/zizmor --offline --quiet .github
	$(TOOLS)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(TOOLS)/yamllint --strict .
	$(TOOLS)/hadolint Dockerfile
	$(TOOLS)/hadolint --ignore DL3006 manifests/kind/example/Dockerfile # an image of any version
	for values in $(CHART)/ci/*-values.yaml; do \
		$(DEVTOOL) helm template artifacts $(CHART) --namespace artifacts --values $$values > build/rendered.yaml \
		&& $(DEVTOOL) kube-score score $(KUBE_SCORE_FLAGS) build/rendered.yaml || exit 1; done
	$(DEVTOOL) promtool check rules --lint=all --lint-fatal $(CHART)/files/alerts.yaml

tools: install ## Build the servers and clients for tests and demo into the user's cache (once per version)
	@exec $(BIN)/python -m devcluster tools

# Not followed: a CPU limit throttles leader election; the only ephemeral storage is the log; the image sets user and group
# (65532) and OpenShift its own; tags of releases do not move; the values have a switch for the NetworkPolicy, and the Pod of
# `helm test` lives for seconds.
KUBE_SCORE_FLAGS := --ignore-container-cpu-limit $(addprefix --ignore-test=,container-ephemeral-storage-request-and-limit \
	container-security-context-user-group-id container-image-pull-policy pod-networkpolicy)

sbom: $(TOOLS)/.packages ## Write dist/sbom.cdx.json: the Python packages of the image, as CycloneDX
	@mkdir -p dist
	$(TOOLS)/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/sbom.cdx.json

audit: $(TOOLS)/.packages ## Look up known vulnerabilities of everything in requirements/
	for lock in requirements/*.txt; do $(TOOLS)/pip-audit --strict --disable-pip --require-hashes -r $$lock || exit 1; done

site: $(TOOLS)/.packages ## Build the documentation as a website into build/site
	@# Without --quiet, which would also hide warnings from --strict. The variable hides a notice about MkDocs 2.
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/mkdocs build --strict

lock: install ## Update requirements/*.txt from pyproject.toml; versions are kept unless ARGS=--upgrade
	$(BIN)/uv pip compile $(LOCK_FLAGS) $(ARGS) pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile $(LOCK_FLAGS) $(ARGS) pyproject.toml --group dev -o requirements/dev.txt
	$(BIN)/uv pip compile $(LOCK_FLAGS) $(ARGS) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(BIN)/uv pip compile $(LOCK_FLAGS) $(ARGS) requirements/go-toolchain.in -o requirements/go-toolchain.txt
	$(BIN)/uv pip compile $(LOCK_FLAGS) $(ARGS) requirements/tools.in -o requirements/tools.txt

clean: ## Remove .venv, caches and build results of this checkout; the built tools are kept
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-cache: ## Remove the built tools and their build caches from the user's cache
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/artifact-repository-controller"

# Two stamp files: an edit of pyproject.toml reinstalls only the project; a new lock reinstalls everything.
$(BIN)/.packages: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
		"Python 3.11 or newer is needed, and '$(PYTHON)' is $$(command -v $(PYTHON) >/dev/null && $(PYTHON) --version 2>&1 || echo not there):" \
		"install it, or name another one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
		"$$($(PYTHON) --version) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)," \
		"or name another Python, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@# uv takes seconds where pip takes a minute; pip where there is no uv, or uv does not reach the index that pip does.
	@awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements/dev.txt > $(BIN)/uv.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes --no-deps -r $(BIN)/uv.txt \
		&& $(BIN)/uv pip install --python $(BIN)/python --require-hashes --no-deps -r requirements/dev.txt \
		|| $(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@touch $@

$(TOOLS)/.packages: requirements/tools.txt | install
	$(BIN)/python -m venv --clear build/tools
	$(BIN)/uv pip install --quiet --python $(TOOLS)/python --require-hashes --no-deps -r requirements/tools.txt \
		|| $(TOOLS)/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/tools.txt
	@touch $@

$(BIN)/.project: $(BIN)/.packages pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-index --no-deps --no-build-isolation -e .
	@touch $@

# The image and generated files.
CONTAINER_ENGINE ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' controller/__init__.py)
# In full, as a Deployment names it: podman would put localhost/ in front of a short name.
IMAGE ?= docker.io/library/artifact-repository-controller:$(VERSION)
BASE_IMAGE ?=
KIND_CLUSTER ?= kind

.PHONY: docs demo-pictures manifests image kind-load chart package

docs: install ## Regenerate parts of the documentation, the chart's schema and the Argo CD ConfigMap
	@$(BIN)/python -m hack.generate

demo-pictures: install ## Play the demo's tour, and put its output into README.md and docs/images/
	@$(BIN)/python -m hack.pictures

manifests: install ## Regenerate manifests/ from the chart
	@$(BIN)/python -m devcluster manifests

chart: install ## Package the chart into dist/
	@$(BIN)/python -m devcluster tool helm package $(CHART) --destination dist \
		--version $(VERSION) --app-version $(VERSION)

package: install ## Build the Python package into dist/: a wheel and a source distribution
	@$(BIN)/python -m hatchling build --directory dist

image: ## Build the operator's image (IMAGE=NAME:TAG, BASE_IMAGE=NAME, CONTAINER_ENGINE=podman)
	$(CONTAINER_ENGINE) build --tag $(IMAGE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) $(addprefix --build-arg BASE_IMAGE=,$(BASE_IMAGE)) .

kind-load: ## Load the image into the nodes of a kind cluster (IMAGE=NAME:TAG, KIND_CLUSTER=NAME, CONTAINER_ENGINE=podman)
	@mkdir -p build && rm -f build/image.tar
	$(CONTAINER_ENGINE) save --output build/image.tar $(IMAGE)
	kind load image-archive build/image.tar --name $(KIND_CLUSTER)
	@rm build/image.tar
