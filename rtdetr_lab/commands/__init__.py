"""# Commands: one module per verb of `rtdetr-lab`; `cli.py` finds them

A command is a frozen dataclass derived from `base.Command`. Its fields are the options, its
docstrings are the help, and `run()` returns the exit code. These modules import nothing heavy at
the top, so that `rtdetr-lab --help` is fast.
"""
