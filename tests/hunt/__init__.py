"""The hunt: programs that look for what the tests do not know yet, for as long as they are given.

`python -m hunt` runs every hunter, each in processes of its own, so that a death or a hang is a finding like any other.
A hunter is a module with `hunt(rng)`, one round of it; whatever that raises is a finding. The round's seed replays it.
"""
