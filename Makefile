# kvmlab's one-word commands. The work is in tools/*.sh, which can be read (and run) on their own.
# Variables given here reach them: make lab BROWSER=none, make inplace PYTHON=/path/to/python3

.DEFAULT_GOAL := help
.PHONY: help lab test dev inplace lint fmt asan wasm fuzz speed soak labs
help:           ## this list
	@awk -F ':.*## *' '/^[a-z]+:.*##/ { printf "make %-9s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab:            ## environment, build, labs into work/, JupyterLab on the first lab
	@tools/lab.sh
test:           ## all that tests need, and all tests
	@tools/test.sh
dev:            ## an environment to work in: all tools, kvmlab rebuilt on import
	@tools/dev.sh
inplace:        ## build the extension into kvmlab/engine/, so that PYTHONPATH=. works
	@tools/inplace.sh
lint:           ## ruff, mypy, tsc
	@tools/lint.sh
fmt:            ## ruff format; clang-format on the C you changed
	@tools/fmt.sh
asan:           ## the C tests under AddressSanitizer and UBSan
	@tools/asan.sh
wasm:           ## the core as build-wasm/engine.wasm
	@tools/wasm.sh
fuzz:           ## random code under the sanitizers: RUNS=100000 SEED=…
	@tools/fuzz.sh
speed:          ## the benchmark, beside Unicorn
	@tools/speed.sh
soak:           ## the long tests at their full counts, with a report in docs/reports/
	@tools/soak.sh
labs:           ## the release notebooks, from labs/*.py
	@tools/labs.sh
