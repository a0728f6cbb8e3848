# One profile (release) for building, testing and measuring: RocksDB takes long to compile, and once is
# enough. The build directory is outside of the checkout, so that a fresh clone reuses it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export CARGO_TARGET_DIR ?= $(HOME)/.cache/mimeo/target
export MIMEO ?= $(CARGO_TARGET_DIR)/release/mimeo
export NFS_CLIENT ?= $(CURDIR)/../shared/nfs-client

# Debian packages: the compiler's needs (RocksDB is C++, bindgen reads its headers), then the tests'.
PACKAGES := gcc g++ make libclang-dev clang python3 jq attr libnfs-utils nfs-common ca-certificates fio
FUZZ_SECONDS ?= 60

.PHONY: help setup setup-client build check fmt clippy unit model crash torture kernel test demo bench bench-repoint bench-storm bench-writes fuzz docker-check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Debian packages that are missing (root or sudo)
	@missing=""; for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then echo "setup: all packages are there"; \
	else echo "setup: installing$$missing"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
	@for c in rustfmt clippy; do cargo $${c/rustfmt/fmt} --version >/dev/null 2>&1 || rustup component add $$c; done

setup-client: ## prepare the kernel client's guests where ../shared/nfs-client is (root)
	@tests/kernel/setup

build: setup ## the program (in CARGO_TARGET_DIR, by default below ~/.cache/mimeo)
	cargo build --release --locked

check: setup fmt clippy ## what is quick: formatting, lints, tidy
	cargo test --release --locked --test tidy

fmt:
	cargo fmt --check

clippy:
	cargo clippy --release --locked --all-targets -- -D warnings

unit: ## the tests that need nothing but cargo
	cargo test --release --locked

model: ## long random fleets against the reference model: MIMEO_OPS operations in each world
	MIMEO_OPS=$${MIMEO_OPS:-30000} cargo test --release --locked --test model -- --nocapture

crash: ## kill -9 of the daemon under writers, MIMEO_ROUNDS times; and under a kernel client
	MIMEO_ROUNDS=$${MIMEO_ROUNDS:-200} cargo test --release --locked --test crash -- --nocapture
	ROUNDS=40 tests/kernel/run crash

torture: ## clones switched every second for SECONDS_LONG seconds under all that a kernel client does
	SECONDS_LONG=$${SECONDS_LONG:-180} tests/kernel/run torture

kernel: ## the tests against real NFS clients (needs a build)
	tests/kernel/run

test: setup setup-client fmt clippy ## all that CI runs
	cargo build --release --locked
	cargo test --release --locked
	docker/check
	tests/kernel/run

demo: build setup-client ## import an OS tree, 1,000 clones, one repoint under an open file, figures
	tests/demo/run

bench: setup ## the figures of docs/benchmarks.md
	cargo bench --profile release --locked

bench-repoint: setup ## repoint and rollback of fleets beside symlinks, renames and reflinks (root, xfsprogs)
	as=""; [ "$$(id -u)" != 0 ] || as="unshare --mount"; \
	  $$as cargo bench --profile release --locked --bench repoint -- --scratch $${BENCH_DIR:-/var/tmp}

bench-storm: setup ## boot storms beside a null server and NFS-Ganesha (root, nfs-ganesha-vfs, xfsprogs); STORM='--quick'
	bench/storm-compare $(STORM)

bench-writes: setup ## private writes beside NFS-Ganesha on the same disk (root, nfs-ganesha-vfs, xfsprogs)
	bench/beside-ganesha

fuzz: ## fuzz the wire decoders, FUZZ_SECONDS each (needs a nightly toolchain and cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "fuzz: cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	@for t in $$(cargo fuzz list --fuzz-dir tests/fuzz); do \
	  cargo +nightly fuzz run --fuzz-dir tests/fuzz $$t -- -max_total_time=$(FUZZ_SECONDS); done

docker-check: ## what can be checked about docker/ without an engine
	docker/check

clean: ## remove the build directory
	cargo clean
