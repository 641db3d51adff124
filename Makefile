# kvmlab's one-word commands. The work is in tools/*.sh, which can be read (and run) on their own.
PYTHON ?= $(shell test -x .venv/bin/python && echo .venv/bin/python || echo python3)
export PYTHON

.PHONY: inplace
inplace:        ## build the extension into kvmlab/engine/, so that PYTHONPATH=. works
	tools/inplace.sh
