# The work is done by make.py; on Windows run `python make.py book` directly.
PYTHON ?= python3
COMMANDS = book test lab serve clean doctor list run bench refresh chapter setup

.PHONY: $(COMMANDS)
.DEFAULT_GOAL := help

$(COMMANDS):
	@$(PYTHON) make.py $@ $(NAME) $(ARGS)

.PHONY: help
help:
	@$(PYTHON) make.py --help
