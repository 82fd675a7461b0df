# What people do with a checkout. `make` alone lists it.

PY := .venv/bin/python
ROWFS := .venv/bin/rowfs
POOL := pool
MNT := mnt
# Tests at the same time; 0: one after the other, in one process.
WORKERS := 2
LEVELS := tests/pure tests/store tests/operations tests/mount tests/faults

# A test on the mountpoint itself would hang or fail when its daemon is gone; the kernel's list does neither.
MOUNTED := grep -qsF " $(realpath .)/$(MNT) fuse.rowfs " /proc/mounts

.NOTPARALLEL:
.PHONY: help run umount stop test check sanitize format docs man demo bench bench-peers bench-databases bench-ageing clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## install what is missing, make ./pool if there is none, mount it on ./mnt
	@tools/setup
	@[ -e $(POOL) ] || $(ROWFS) init $(POOL)
	@if $(MOUNTED) && ! stat -f $(MNT) >/dev/null 2>&1; then fusermount3 -uz $(MNT); fi # its daemon was killed
	@mkdir -p $(MNT)
	@$(MOUNTED) || $(ROWFS) mount $(POOL) $(MNT)
	@printf '%s\n' \
		'./$(POOL) is mounted on ./$(MNT). Now, for instance:' \
		'' \
		'  $(ROWFS) create $(MNT)/vm1 20G          # a disk: the file $(MNT)/vm1' \
		'  $(ROWFS) snapshot $(MNT)/vm1@first      # read-only in $(MNT)/.snapshots/vm1/first' \
		'  $(ROWFS) clone $(MNT)/vm1@first $(MNT)/vm2' \
		'  $(ROWFS) list $(MNT)' \
		'  $(ROWFS) --help' \
		'  make umount                           # or: $(ROWFS) umount $(MNT)'

umount: ## unmount ./mnt; the pool stays
	@if $(MOUNTED); then $(ROWFS) umount $(MNT); else echo './$(MNT) is not mounted'; fi

stop: umount ## the same as umount

test: ## run all tests, two at a time, the cheap levels first (ARGS='-k snapshot' to choose)
	@tools/setup --test
	@$(PY) -m pytest $(LEVELS) -n $(WORKERS) --dist worksteal $(ARGS)

check: ## format, lint, types, import floors, pure tests: under a minute
	@tools/setup
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) tools/floors.py
	@$(PY) -m pytest tests/pure $(ARGS)

sanitize: ## test the C extension with ASan, UBSan and TSan, in a minute (ARGS=... for pytest)
	@tools/setup --test
	@tools/sanitize $(ARGS)

format: ## format the code and mend what ruff can
	@tools/setup
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

docs: ## write what the documents say of each verb, from its declaration in rowfs/verbs
	@tools/setup
	@$(PY) tools/docs.py

man: ## write man pages into build/man (man -l build/man/rowfs.1)
	@tools/setup
	@$(PY) tools/docs.py --man build/man

demo: ## play the transcript of README.md for real
	@tools/setup
	@$(PY) tools/demo.py $(ARGS)

bench: ## measure and print the figures that docs/ promises
	@tools/setup --bench
	@$(PY) tools/bench.py $(ARGS)

bench-peers: ## measure rowfs beside qcow2, a plain file, XFS and btrfs, all in turn (root, 40 GiB)
	@tools/setup --bench
	@$(PY) tools/bench_peers.py $(ARGS)

bench-databases: ## measure databases on rowfs beside a plain file, qcow2 and a C server, all in turn (root, 30 GiB)
	@tools/setup --bench
	@$(PY) tools/bench_databases.py $(ARGS)

bench-ageing: ## age a disk by random overwrites beside snapshots, and tell what users notice (35 GiB, 7 minutes)
	@tools/setup
	@$(PY) tools/bench_ageing.py $(ARGS)

clean: ## remove what make made, .venv included; never the pool
	@if $(MOUNTED); then echo './$(MNT) is mounted: run make umount first' >&2; exit 1; fi
	@[ ! -d $(MNT) ] || rmdir $(MNT)
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache rowfs/*/_*.so
	@find rowfs tests tools -name __pycache__ -prune -exec rm -rf {} +
