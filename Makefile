# kvmlab's one-word commands. The work is in tools/*.sh, which can be read (and run) on their own.

.PHONY: inplace asan
inplace:        ## build the extension into kvmlab/engine/, so that PYTHONPATH=. works
	@tools/inplace.sh
asan:           ## the C tests under AddressSanitizer and UBSan
	@tools/asan.sh
