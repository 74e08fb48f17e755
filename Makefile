# Two commands matter: `make up` (a running Loquat on this machine) and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MEMBERS := $(wildcard libs/* services/* tools/*)
ARGS   ?=
BUS    ?= $(or $(LOQUAT_BUS),postgres)

.PHONY: help install up test lint fmt soak bench docs lock clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed

$(VENV)/installed: requirements/dev.lock $(addsuffix /pyproject.toml,$(MEMBERS)) scripts/install
	@PYTHON="$(PYTHON)" VENV="$(VENV)" scripts/install $(MEMBERS)

up: install ## the whole platform on this machine; BUS=kafka for a real Kafka
	@LOQUAT_BUS="$(BUS)" exec $(BIN)/loquat up $(ARGS)

test: install ## all tests, on two processes; ARGS reaches pytest ("-n 0" for one, where a debugger works)
	@scripts/system-packages
	@$(BIN)/python -m pytest -n 2 $(ARGS)

lint: install ## formatting, ruff, types, import contracts
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/basedpyright --level error && $(BIN)/lint-imports

fmt: install ## format and mend what can be mended
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

soak: install ## what takes long: 300 projects' bots while everything dies (SECONDS, PROJECTS, RATE, SEED), 1,000 databases (LOQUAT_SOAK)
	@LOQUAT_SOAK_SECONDS="$(SECONDS)" LOQUAT_SOAK_PROJECTS="$(PROJECTS)" LOQUAT_SOAK_RATE="$(RATE)" LOQUAT_SOAK_SEED="$(SEED)" \
		$(BIN)/python -m pytest -s -p no:randomly tests/soak/*.py $(ARGS)

bench: install ## speed, as ratios within one run
	@$(BIN)/python -m bench $(ARGS)

docs: install ## regenerate docs/ from the code
	@$(BIN)/python scripts/generate-docs

lock: install ## renew requirements/dev.lock
	@$(BIN)/uv pip compile --upgrade --quiet --universal --generate-hashes --no-header --group dev pyproject.toml -o requirements/dev.lock

clean: ## everything that was built or installed here, the data of `make up` excepted
	@rm -rf $(VENV) .ruff_cache .hypothesis .import_linter_cache deploy/kafka-local/libs build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
