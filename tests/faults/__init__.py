"""The promise of sweeps, measured: each fault with each launcher, under `rna.run` itself.

`pytest -m faults -n 0 tests/faults` runs all of it (about half an hour; needs root) and prints the README's table.
"""
