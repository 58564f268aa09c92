"""Real poison: a QEMU guest whose kernel declares memory broken, and copies that have to survive it.

The host's half builds an image and boots it (`__main__`, `image`, `boot`); the guest's half (`inside` and what it
imports) runs out of the host's own file system, mounted read-only, so what is tested is the package as it is installed.
"""
