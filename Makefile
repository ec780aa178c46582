PYTHON ?= python3
VENV = .venv/bin
export PYTHON
# A lab starts hundreds of interpreters. Where none may keep what it has compiled, each compiles all of our sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv demo check test test-long schedules fuzz lint assets engine images faults lock

help: ## what each target does
	@awk -F ':.* ## |: ## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

venv: ## .venv, in which the lab, the daemons and the command line run
	@scripts/setup lab

demo: venv ## the whole thing on this machine, from nothing
	@$(VENV)/python -m lab demo $(DEMO_ARGS)

lint: ## format, lint, types, layers
	@scripts/setup dev
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports

check: lint ## the quick loop: lint and unit tests
	$(VENV)/pytest -q -n 2 -m "not lab and not slow and not long" tests

# Four processes on two cores: a lab waits more than it computes. tests/order.py says which tests are begun first.
test: lint assets ## everything, each fault once
	@[ -z "$$CI" ] || scripts/engine
	$(VENV)/pytest -n 4 --dist loadgroup --no-loadscope-reorder -m "not long" tests

# Without them the tests on a real control plane are left out, which pytest's first lines say; in CI that is a failure.
assets: ## the programs of a real control plane, Helm and Prometheus, found or built once
	@scripts/setup dev
	@$(VENV)/python -m lab assets || [ -z "$$CI" ]
	@$(VENV)/python -m lab.assets.metallb_release || [ -z "$$CI" ]

# An engine that is there is used; as root on Debian one is installed and started, in a network namespace of its own. Without
# one the tests of the images are left out, which pytest's first lines say; in CI that is a failure.
engine: ## a container engine, started if there is none
	@scripts/engine

images: engine ## both images, their sizes and how fast they start
	@scripts/setup dev
	@$(VENV)/python -m bench.images $(IMAGES_ARGS)

test-long: assets ## faults repeated, and Kubernetes' own defaults
	$(VENV)/pytest -m long tests
	BERTHLB_ALL_SEEDS=yes $(VENV)/pytest -m "not long" tests/speaker/protocol/simulation
	$(VENV)/python -m tests.speaker.protocol.simulation

schedules: ## a hundred thousand random schedules of faults in the simulation (SCHEDULES_ARGS="--from 4000 --count 1000")
	@scripts/setup dev
	$(VENV)/python -m tests.speaker.protocol.simulation $(SCHEDULES_ARGS)

fuzz: ## a million made-up inputs for each parser, and a hundred thousand lying members (FUZZ_ARGS="--runs 1000 arp")
	@scripts/setup dev
	@scripts/setup fuzz
	$(VENV)/python -m tests.fuzz $(FUZZ_ARGS)

# FAULTS=power-cut,drain REPEAT=5 NODES=3 make faults: fewer of them. What JSON has already is not measured again.
FAULTS ?=
REPEAT ?= 20
NODES ?= 3,10
JSON ?= faults.json
faults: ## the table of faults: each one REPEAT times, in clusters of so many NODES
	@scripts/setup dev
	$(VENV)/python -m bench.faults --faults "$(FAULTS)" --repeat $(REPEAT) --nodes $(NODES) --json $(JSON) $(FAULTS_ARGS)

# Of what the official client depends on, only its asynchronous half, its watches' websockets and calendars use these;
# the daemons use neither, and their images go without.
NOT_IN_IMAGES = aiohappyeyeballs aiohttp aiohttp-retry aiosignal attrs frozenlist multidict propcache tzdata websocket-client yarl

# Exact versions and hashes for every platform; no download addresses.
lock: ## the exact versions in requirements/, after a change of pyproject.toml
	@scripts/setup dev
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements/runtime.txt
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --extra lab -o requirements/lab.txt -c requirements/runtime.txt
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --extra lab --group dev -o requirements/dev.txt -c requirements/lab.txt
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --group fuzz -o requirements/fuzz.txt
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements/image.txt -c requirements/runtime.txt $(NOT_IN_IMAGES:%=--no-emit-package %)
