"""# Commands: one module per verb of `rtdetr-lab`, found by `cli.py`

A command is a frozen dataclass derived from `base.Command`: its fields are the options, its
docstrings the help, and `run()` returns the exit code. Nothing heavy is imported at the top of
these modules, so that `rtdetr-lab --help` answers at once.
"""
