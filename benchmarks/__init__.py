"""Measures Litepool and other servers on one machine, one after another: `python -m benchmarks --help`."""
