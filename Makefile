# The few commands of the project. `make run` first; README.md says more.

TARGET  := $(shell rustc -vV | sed -n 's/^host: //p')
QUICK   := target/$(TARGET)/quick
RELEASE := target/$(TARGET)/release
PREFIX  ?= /usr/local
DESTDIR ?=
PROGRAMS := docker dockerd docker-init wharf-shim wharf-runtime

.PHONY: run test test-long check binaries release bench install uninstall prerequisites

prerequisites:
	@scripts/prerequisites

# What tests and the demonstration drive: optimised, without link-time optimisation, kill points compiled in.
binaries: prerequisites
	cargo build --locked --profile quick --features inject $(PROGRAMS:%=-p bin-%)

release: prerequisites
	cargo build --locked --release $(PROGRAMS:%=-p bin-%)

run: binaries
	@scripts/demo $(QUICK)

check: prerequisites
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo xtask tidy

# The quick tier: everything that decides whether a change is right.
test: check binaries
	scripts/tests quick

# The long tier: virtual machines, long kill loops, floods. Includes the quick tier.
test-long: check binaries
	@scripts/prerequisites long
	scripts/tests long

# PEER=unix:///path/to/docker.sock compares with another engine (PEER_CLI names its command line).
bench: release
	cargo build --locked --profile quick -p testkit
	WHARF_BIN_DIR=$(RELEASE) $(QUICK)/bench

install: release
	scripts/install "$(DESTDIR)" "$(PREFIX)" $(RELEASE)

uninstall:
	scripts/install --remove "$(DESTDIR)" "$(PREFIX)"

# Each fuzz target for SECONDS (default 30). Needs `cargo install cargo-fuzz`; the pinned stable compiler suffices.
SECONDS ?= 30
.PHONY: fuzz
fuzz:
	cd fuzz && for target in $$(sed -n 's/^name = "\(.*\)"$$/\1/p' Cargo.toml | grep -v wharf-fuzz); do \
		echo "fuzzing $$target" && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . --sanitizer none --target $(TARGET) $$target -- \
			-max_total_time=$(SECONDS) -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 || exit 1; done
