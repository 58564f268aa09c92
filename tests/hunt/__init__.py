"""The hunt: random programs that look for unknown bugs for a given time.

`python -m hunt` runs every hunter in processes of its own, so that a crash or a hang is a finding like any other. A
hunter is a module with a function `hunt(rng)`, which is one round. Whatever a round raises is a finding, and its seed
replays it.
"""
