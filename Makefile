TOX = .venv/bin/tox run -e

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

setup: ## Install what this machine lacks (Debian, Ubuntu; root)
	@tests/setup-machine

test: setup ## Everything: lint, unit, host and image tests (root)
	.venv/bin/tox run

lint: setup ## ruff, mypy, import-linter, vermin, tmt, shellcheck
	$(TOX) lint

unit: setup ## Unit tests, with each of the Pythons of RHEL that is found
	$(TOX) unit,interpreters

editors: setup ## The schema in the real yaml-language-server (needs npm)
	@command -v npm > /dev/null || { echo "error: no npm: apt-get install npm" >&2; exit 1; }
	$(TOX) editors

hosts: setup ## Tests on throwaway hosts (root)
	$(TOX) hosts

test-more-hosts: setup ## The oldest and the newest systems, from mirrors that may be gone (root)
	$(TOX) more-hosts

images: setup ## Tests of images/: RPM, provisioning, mkosi, refusals (root)
	$(TOX) images

test-images: setup ## An image built and booted in QEMU without KVM, ten minutes (root)
	$(TOX) images-slow

rpm: ## Build the RPMs for EL 8, 9 and 10 into dist/
	@for release in 8 9 10; do images/build-rpm --release $$release || exit; done

links: ## Ask for each address that the documents link to (a connected machine)
	@python3 tools/links.py

verify-centos: ## Build and boot both real images (a connected machine)
	@images/verify-centos

roots: setup ## Build the hosts' root file systems, if the cache has none (root)
	@.venv/bin/python tests/hosts/roots.py

demo: ## Boot both hosts with the example's user-data and show what came of it (Debian, Ubuntu; root)
	@tests/setup-machine --for-hosts
	@$(TOX) demo

shell: ## A shell in a host that booted the example: HOST=el9 or el10 (Debian, Ubuntu; root)
	@tests/setup-machine --for-hosts
	@$(TOX) shell --notest -qq
	@.tox$(SUDO_UID)/shell/bin/python tests/hosts/shell.py $(or $(HOST),el10)

bench: setup ## Measure a run against systemctl and Ansible; a quarter of an hour, on a quiet machine (root)
	@$(TOX) bench

clean: ## Remove what the targets made here (the cache of roots stays)
	rm -rf .venv .tox .tox[0-9]* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup test lint unit editors hosts test-more-hosts images test-images rpm links verify-centos roots demo shell bench clean
