"""How fast this package is on this machine, beside the ways Python already has: what `iovec-rs bench` runs.

The files of this folder import one another by relative names and the package by its public one: `--against` runs a copy
of the folder over another version of the package.
"""
