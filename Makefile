# Everything that is done with this repository has a target here: `make help`.
#
# All targets use the one release profile, so that llama.cpp is compiled once,
# and all cargo commands name the whole workspace, so that dependencies are
# compiled with one set of features.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
export PATH := $(CURDIR)/.tools/bin:$(PATH)
# A test that lacks its real input fails here instead of passing unseen.
test test-peers: export HAYLOFT_REQUIRE_GGUFS = 1

BENCHMARKS := blob-get manifest-get push pull warm-pull small-pushes commit-time growth index memory streams mirror slow-link delta chunk-map warm-ensure parallel-pulls

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  bench-NAME     one measurement: $(BENCHMARKS)"

.PHONY: build
build: ## build target/release/hayloft
	scripts/install-deps.sh build
	$(CARGO) build --release

.PHONY: demo
demo: ## push, pull and ask the bundled model, on a throw-away registry, agent and runtime
	scripts/install-deps.sh demo
	$(CARGO) build --release
	scripts/demo.sh

.PHONY: lint
lint: ## formatting, clippy, docs, dependency rules, shell scripts
	scripts/install-deps.sh test
	$(CARGO) fmt --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release --workspace --test peers --test soak -- -D warnings
	$(CARGO) check --release -p artifact --no-default-features
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps --document-private-items
	$(CARGO) fetch --quiet --locked
	cargo-deny --offline check licenses bans sources
	shellcheck .ci/run $$(git ls-files '*.sh')

.PHONY: test
test: lint ## lint, then every test that needs only Debian, PyPI and Rust packages
	scripts/fetch-ggufs.sh
	# The binary and the tests in one go: built apart, their dependencies would be compiled
	# twice, with two sets of features.
	$(CARGO) build --release --workspace --all-targets
	$(CARGO) test --release --workspace --doc
	$(CARGO) test --release --workspace --tests

.PHONY: test-peers
test-peers: ## eight rounds of soak, and tests against peers that are built first: crane, Ollama and others
	scripts/install-deps.sh peers
	scripts/build-peers.sh
	$(CARGO) build --release --workspace --all-targets
	$(CARGO) test --release --workspace --test soak -- --rounds 8
	$(CARGO) test --release --workspace --test peers

ROUNDS ?= 200
.PHONY: soak
soak: ## kill -9 the registry amid pushes and deletes, ROUNDS=200 times, and look for losses (SEED=N)
	scripts/install-deps.sh peers
	scripts/build-peers.sh versitygw
	$(CARGO) build --release --workspace --bin hayloft
	$(CARGO) test --release --workspace --test soak -- --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

.PHONY: conformance
conformance: ## the OCI distribution conformance suite (CONFORMANCE=path to the program, or on PATH)
	scripts/install-deps.sh build
	$(CARGO) build --release
	scripts/conformance.sh

.PHONY: fuzz
fuzz: ## each fuzz target for a minute
	scripts/fuzz.sh

.PHONY: bench
bench: ## all measurements
	scripts/install-deps.sh bench
	scripts/build-peers.sh distribution
	$(CARGO) build --release --workspace --bin hayloft
	for name in $(BENCHMARKS); do python3 bench/$$name.py; done

.PHONY: $(BENCHMARKS:%=bench-%)
$(BENCHMARKS:%=bench-%): bench-%:
	scripts/install-deps.sh bench
	scripts/build-peers.sh distribution
	$(CARGO) build --release --workspace --bin hayloft
	python3 bench/$*.py

.PHONY: clean
clean: ## remove what was built; peers, tools and the Python environment too
	$(CARGO) clean
	rm -rf .peers .tools .venv conformance-results fuzz/target
