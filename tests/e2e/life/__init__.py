"""What a server lives through, and what must hold meanwhile: short in the tests, long in `python -m benchmarks --life`.

Each scenario gives its figures and the faults that it saw; a sound server gives none.
"""
