# Every target sets up all it needs. Nothing is installed outside the tree, except by setup and by test-guest, which needs QEMU.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
RUST := Cargo.toml Cargo.lock build.rs .cargo/config.toml $(shell find src -name '*.rs')

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-python test-aarch64 test-guest test-kills test-foreign hunt setup lint format bench bench-compare bench-native record wheel clean

help:  ## show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.built  ## walk real files through the iterator and prove every byte
	$(BIN)/iovec-rs demo

test: test-rust test-python  ## the core's tests, then Python's

test-rust: $(VENV)/.tools
	cargo test --locked --no-default-features

test-python: $(VENV)/.built $(VENV)/.test
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest benches --benchmark-disable

# What asks the kernel for exact counts or newer calls than QEMU passes on: it emulates no kernel here.
KERNELS := what_could_not_be_read what_could_not_be_written goes_bad_between_two_tries both_ways_stop faulting_in with_flags
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := qemu-aarch64 -L /usr/aarch64-linux-gnu
test-aarch64:  ## the core's tests for 64-bit ARM in QEMU's user emulation; needs that, a cross gcc and rustup's target
	cargo test --locked --no-default-features --target aarch64-unknown-linux-gnu --lib -- $(KERNELS:%=--skip %)

test-guest: $(VENV)/.built  ## really broken memory and persistent memory, in a QEMU guest
	PYTHONPATH=tests $(BIN)/python -m guest $(GUEST)

KILLS ?= 5
test-kills: $(VENV)/.built  ## a log whose QEMU guest is killed KILLS times: nothing acknowledged is lost
	PYTHONPATH=tests $(BIN)/python -m guest.kills --kills $(KILLS)

JUDGES := numpys_own or safetensors or lmdb or as_in_go or as_in_openjdk

HUNT ?= 180
hunt: $(VENV)/.built $(VENV)/.test  ## look for what no test knows yet, for HUNT seconds; HUNTER, SEED, ROUNDS replay a finding
	PYTHONPATH=tests $(BIN)/python -m hunt --seconds $(HUNT) \
	  $(HUNTER:%=--only %) $(SEED:%=--seed %) $(ROUNDS:%=--rounds %)

test-foreign: $(VENV)/.built $(VENV)/.test  ## CPython's tests of vectored calls through iovec_rs.io; others' readers of mapped files under guards
	-$(BIN)/python -m pip install --quiet --group judges
	$(BIN)/python -m pytest -q tests/guard/test_matrix.py -k "$(JUDGES)"
	cd $(or $(TMPDIR),/tmp) && PYTHONPATH=$(CURDIR)/tests $(CURDIR)/$(BIN)/python -m foreign

setup:  ## install, on Debian and as root, what some tests are skipped without: ddrescuelog, objdump
	apt-get update --quiet
	apt-get install --quiet --yes --no-install-recommends gddrescue binutils

lint: $(VENV)/.built $(VENV)/.test $(VENV)/.lint  ## fmt, clippy, ruff, mypy, stubtest
	cargo fmt --check
	cargo clippy --locked --no-default-features --all-targets -- -D warnings
	cargo clippy --locked --lib -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/stubtest iovec_rs --mypy-config-file pyproject.toml

format: $(VENV)/.lint  ## rewrite to the house's format
	cargo fmt
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.built $(VENV)/.test  ## ratios against the best there is, interleaved in one run
	$(BIN)/python -m benches $(BENCH)
ifeq ($(BENCH),)
	@if why=$$($(BIN)/python -m iovec_rs._bench.libpmem); then $(MAKE) --no-print-directory bench-native; \
	  else echo "the native bench is left out: $$why"; fi
endif

NATIVE_BENCH = bash -o pipefail -c 'cargo bench --quiet --locked --no-default-features --bench native -- $(1) | $(BIN)/python -m benches.judge'

RECORD ?= call vectored cliff import memory fault guard growth durable integrity log io
RECORD_NATIVE ?= flat limits behind
RECORD_SWEEPS ?= copy gather scatter write read durable publish consume
record: $(VENV)/.built $(VENV)/.test  ## this machine's record, its plots, the tables over machines, in ten quiet minutes: NAME=zen5
	@test -n "$(NAME)" || { echo "make record NAME=...: the machine has no name" >&2; exit 1; }
	mkdir -p target
	git log -1 --format='commit %h of %cs' > target/record.txt
	$(BIN)/python -m benches $(RECORD) --json target/record.json >> target/record.txt
	if why=$$($(BIN)/python -m iovec_rs._bench.libpmem); then $(call NATIVE_BENCH,$(RECORD_NATIVE)); \
	  else echo "the native bench is left out: $$why"; fi >> target/record.txt
	$(BIN)/iovec-rs bench $(RECORD_SWEEPS) --plot benches/results/$(NAME)-throughput.svg >> target/record.txt
	$(BIN)/python -m benches.plots target/record.json benches/results/$(NAME)
	cp target/record.txt benches/results/$(NAME).txt
	$(BIN)/python -m benches.summary

bench-compare: $(VENV)/.built $(VENV)/.test  ## the same contestants by pytest-benchmark, with what it takes: BENCH="-k gather"
	$(BIN)/python -m pytest benches $(or $(BENCH),--benchmark-autosave)

bench-native: $(VENV)/.built  ## copies against libpmem and the C library, without Python
	$(call NATIVE_BENCH,$(NATIVE))

wheel: $(VENV)/.wheel  ## an sdist, and an abi3 manylinux wheel built from it and tried, in dist/
	$(BIN)/python .ci/wheel.py

clean:  ## remove what was built
	rm -rf $(VENV) target dist .benchmarks .hypothesis .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.tools:
	@command -v cargo >/dev/null || { echo "iovec_rs needs cargo: install Rust 1.89 or later (https://rustup.rs)" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "iovec_rs needs Python 3.11 or later: no $(PYTHON) found; make PYTHON=... names another" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "iovec_rs needs Python 3.11 or later: $(PYTHON) is $$($(PYTHON) -V 2>&1); make PYTHON=... names another" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group build
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group test
	-$(BIN)/python -m pip install --quiet --group runtimes
	@touch $@

$(VENV)/.wheel: pyproject.toml | $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group wheel
	@touch $@

$(VENV)/.lint: pyproject.toml | $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@

$(VENV)/.built: $(RUST) pyproject.toml | $(VENV)/.tools
	@echo "building iovec_rs with its optimisations on: a minute or two, the first time"
	$(BIN)/maturin develop --locked --release --quiet
	@touch $@
