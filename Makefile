TOX = .venv/bin/tox run -e

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

setup: ## Install what this machine lacks (Debian, Ubuntu; root)
	@tests/setup-machine

test: setup ## Everything: lint, unit and host tests (root)
	.venv/bin/tox run

lint: setup ## ruff, mypy, vermin, shellcheck
	$(TOX) lint

unit: setup ## Unit tests, with each of the Pythons of RHEL that is found
	$(TOX) unit,interpreters

hosts: setup ## Tests on throwaway hosts (root)
	$(TOX) hosts

roots: setup ## Build the hosts' root file systems, if the cache has none (root)
	@.venv/bin/python tests/hosts/roots.py

demo: setup ## Boot both hosts with the example's user-data and show what came of it (root)
	@$(TOX) demo

clean: ## Remove what the targets made here (the cache of roots stays)
	rm -rf .venv .tox build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup test lint unit hosts roots demo clean
