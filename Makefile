# Everything a person or CI starts. `make help` lists it.
#
# Targets are files wherever there is one, so that what is done is not done again.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The installations share a build directory.
.NOTPARALLEL:

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
TOOLS := $(TARGET)/tools
BIN := $(TOOLS)/bin

WORKER_BUILD := 0.8.7
SQLX_CLI := 0.9.0
CARGO_DENY := 0.20.2
# The command line tool must be of the very version that the Worker is linked with.
WASM_BINDGEN := $(shell sed -n '/^name = "wasm-bindgen"$$/{n;s/^version = "\(.*\)"$$/\1/p;}' Cargo.lock)

# worker-build takes its helpers from here instead of downloading them.
export WASM_BINDGEN_BIN := $(BIN)/wasm-bindgen
export WASM_OPT_BIN := $(CURDIR)/node_modules/.bin/wasm-opt
export ESBUILD_BIN := $(CURDIR)/node_modules/.bin/esbuild
export WRANGLER_SEND_METRICS := false

EDGE_SOURCES := $(shell find edge shared -name build -prune -o -type f \( -name '*.rs' -o -name '*.js' -o -name '*.toml' \) -print) \
	Cargo.toml Cargo.lock

.PHONY: help setup edge demo dev latency bench-edge bench-bridge bench-rollout test lint openapi sqlx-prepare sqlx-check deny deploy-check clean

help:
	@echo 'make demo          install what is missing, start everything, play three calls'
	@echo 'make test          the same set-up, then every test'
	@echo 'make dev           keep the stack up and say how to place a call'
	@echo 'make latency       time to TwiML, and what the bridge adds to a frame'
	@echo 'make bench-edge    processor time of the Worker beside hand-written JavaScript and Hono'
	@echo 'make bench-bridge  what the bridge costs beside a bare proxy; for more calls: ARGS="--calls 100,400,700"'
	@echo 'make bench-rollout how long 1,000 agents with 3,000 numbers take, there and back; while Twilio fails: ARGS=--faults'
	@echo 'make setup         only install what is missing (the first time about 5 minutes)'
	@echo 'make edge          build the Worker'
	@echo 'make lint          formatting and clippy, on the host and for wasm32'
	@echo 'make openapi       write origin/openapi.json anew, after the API has changed'
	@echo 'make sqlx-prepare  write .sqlx/ anew, after a query or a migration has changed'
	@echo 'make sqlx-check    is .sqlx/ what the queries and migrations say?'
	@echo 'make deny          licences, duplicates and sources of the dependencies'
	@echo 'make deploy-check  all of `wrangler deploy` but the upload, for every environment; and the size'
	@echo 'make clean         remove what was built and installed here'

# Set-up

RUST_READY := $(TOOLS)/.rust
WORKER_BUILD_READY := $(TOOLS)/.worker-build-$(WORKER_BUILD)
WASM_BINDGEN_READY := $(TOOLS)/.wasm-bindgen-cli-$(WASM_BINDGEN)
SQLX_READY := $(TOOLS)/.sqlx-cli-$(SQLX_CLI)
DENY_READY := $(TOOLS)/.cargo-deny-$(CARGO_DENY)
# npm writes this file last.
NPM_READY := node_modules/.package-lock.json

setup: $(RUST_READY) $(NPM_READY) $(WORKER_BUILD_READY) $(WASM_BINDGEN_READY)
	@:

fail = { printf 'make: %s\n' $(1) >&2; exit 1; }

$(RUST_READY): rust-toolchain.toml
	@command -v rustup >/dev/null || $(call fail,'rustup is missing: install it from https://rustup.rs and open a new shell')
	@command -v cc >/dev/null || $(call fail,'a C compiler is missing: apt-get install build-essential')
	@[ "$$(uname)" != Linux ] || { command -v pkg-config >/dev/null && pkg-config --exists openssl; } \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo 'setup: OpenSSL headers (1 minute)' \
			&& apt-get update -qq && apt-get install -qq -y pkg-config libssl-dev >/dev/null; } \
		|| $(call fail,'OpenSSL headers are missing: apt-get install pkg-config libssl-dev')
	@command -v curl >/dev/null && command -v jq >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq -y curl jq >/dev/null; } \
		|| $(call fail,'curl or jq is missing; tests run the commands of the README: apt-get install curl jq')
	@echo 'setup: Rust, with nightly for the Worker (seconds, or a minute if it must be fetched)'
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
	@rustup target list --installed | grep -q wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
	@rustup run nightly rustc --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
	@rustup component list --installed --toolchain nightly | grep -q '^rust-src' \
		|| rustup component add rust-src --toolchain nightly
	@rustup target list --installed --toolchain nightly | grep -q wasm32-unknown-unknown \
		|| rustup target add wasm32-unknown-unknown --toolchain nightly
	@mkdir -p $(TOOLS) && touch $@

# Not `npm ci`: it refuses a lock file that lacks the optional packages of another
# platform, which a registry that does not carry them leaves out.
$(NPM_READY): package.json package-lock.json .npmrc
	@command -v npm >/dev/null || $(call fail,'npm is missing: install Node 20 or newer')
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' \
		|| $(call fail,"Node $$(node --version) is too old: install Node 20 or newer")
	@echo 'setup: npm packages: wrangler, Postgres, wasm-opt, esbuild (700 MB, half a minute)'
	@npm install --no-save --loglevel=error
	@touch $@

# The argument is the optimization level: wasm-bindgen has real work to do.
# These tools are run seldom and briefly: to build them fast matters more than to make them fast.
cargo-install = CARGO_PROFILE_RELEASE_OPT_LEVEL=$(or $(1),0) CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo install --quiet --force --root $(TOOLS) --target-dir $(TOOLS)/build

$(WORKER_BUILD_READY): | $(RUST_READY)
	@echo 'setup: worker-build (2 minutes)'
	@$(cargo-install) --locked worker-build@$(WORKER_BUILD)
	@rm -rf $(TOOLS)/build; touch $@

# Not every registry mirror has all that the tool's lock file names; the version that
# counts, its own, is exact either way.
$(WASM_BINDGEN_READY): | $(RUST_READY)
	@echo 'setup: wasm-bindgen $(WASM_BINDGEN) (2 minutes)'
	@$(call cargo-install,1) --locked wasm-bindgen-cli@$(WASM_BINDGEN) 2>$(TOOLS)/wasm-bindgen.log \
		|| { echo 'setup: its locked dependencies are not all to be had; taking newer or older ones'; \
			$(call cargo-install,1) wasm-bindgen-cli@$(WASM_BINDGEN); }
	@rm -rf $(TOOLS)/build; touch $@

$(SQLX_READY): | $(RUST_READY)
	@echo 'setup: sqlx-cli (2 minutes)'
	@$(cargo-install) --locked sqlx-cli@$(SQLX_CLI) --no-default-features --features postgres,rustls
	@rm -rf $(TOOLS)/build; touch $@

$(DENY_READY): | $(RUST_READY)
	@echo 'setup: cargo-deny (2 minutes)'
	@$(cargo-install) --locked cargo-deny@$(CARGO_DENY)
	@rm -rf $(TOOLS)/build; touch $@

# The Worker

edge: edge/build/index_bg.wasm
	@:

edge/build/index_bg.wasm: $(EDGE_SOURCES) | setup
	@echo 'edge: building the Worker (the first time 2 minutes, then seconds)'
	@cd edge && $(BIN)/worker-build --release --panic-unwind >$(TOOLS)/edge.log 2>&1 \
		|| { cat $(TOOLS)/edge.log; exit 1; }
	@touch $@
	@printf 'edge: %s bytes of wasm, %s gzipped\n' $$(wc -c <$@) $$(gzip -c $@ | wc -c)

# Wrangler needs a newer Node than Debian's; the one from npm is used only then.
wrangler = $$(node -e 'const [a, b] = process.versions.node.split("."); process.exit(a < 22 || (a == 22 && b < 12) ? 1 : 0)' \
	&& echo node || echo node_modules/.bin/node) node_modules/wrangler/bin/wrangler.js

# Gzipped, in bytes: a new isolate has to load it before its first answer.
MAX_WASM := 204800

deploy-check: edge
	@size=$$(gzip -c edge/build/index_bg.wasm | wc -c); [ $$size -le $(MAX_WASM) ] \
		|| $(call fail,"the Worker's wasm is $$size bytes gzipped; the limit is $(MAX_WASM)")
	@for name in '' staging production; do \
		echo "deploy-check: $${name:-the default environment}"; \
		CI=1 WRANGLER_HIDE_BANNER=true $(wrangler) deploy --dry-run --env "$$name" --outdir $(TARGET)/deploy-check \
			|| exit 1; \
	done

# The whole stack

SIM := $(TARGET)/debug/sim

demo: setup edge
	@echo 'demo: building the origin and the simulators (the first time 3 minutes)'
	@cargo build --quiet --bin tandem --bin sim
	@$(SIM) demo

dev: setup edge
	@echo 'dev: building the origin and the simulators (the first time 3 minutes)'
	@cargo build --quiet --bin tandem --bin sim
	@$(SIM) dev

latency: setup edge
	@echo 'latency: building the origin and the simulators for release (the first time 5 minutes)'
	@cargo build --release --quiet --bin tandem --bin sim
	@$(TARGET)/release/sim latency

bench-edge: setup edge
	@echo 'bench-edge: building the load generator (the first time 3 minutes); then 2 minutes of load'
	@cargo build --quiet --bin sim
	@$(SIM) bench-edge

bench-bridge: setup edge
	@echo 'bench-bridge: building the origin and the load for release (the first time 5 minutes); then 3 minutes of calls'
	@cargo build --release --quiet --bin tandem --bin sim
	@$(TARGET)/release/sim bench-bridge $(ARGS)

bench-rollout: setup
	@echo 'bench-rollout: building the origin and the simulators for release (the first time 5 minutes); then some minutes'
	@cargo build --release --quiet --bin tandem --bin sim
	@$(TARGET)/release/sim bench-rollout $(ARGS)

test: setup edge
	@cargo build --quiet --bin tandem --bin sim
	@cargo test --workspace --no-fail-fast
	@CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$(BIN)/wasm-bindgen-test-runner \
		cargo test -p shared --target wasm32-unknown-unknown

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p shared -p edge --target wasm32-unknown-unknown -- -D warnings

# Built without the file's check, which is a test.
openapi:
	@cargo run --quiet -p origin --bin tandem -- openapi >$(TARGET)/openapi.json
	@mv $(TARGET)/openapi.json origin/openapi.json

sqlx = cargo build --quiet --bin sim && PATH=$(BIN):$$PATH $(SIM) postgres -- cargo sqlx prepare --workspace

sqlx-prepare: setup $(SQLX_READY)
	@$(sqlx) -- -p origin --all-targets

sqlx-check: setup $(SQLX_READY)
	@$(sqlx) --check -- -p origin --all-targets

deny: $(DENY_READY)
	@$(BIN)/cargo-deny --locked check bans licenses sources

clean:
	rm -rf $(TARGET) node_modules edge/build .wrangler
