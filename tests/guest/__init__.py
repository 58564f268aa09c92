"""Real poison: the kernel of a QEMU guest declares memory broken, and copies have to survive it.

The host's half builds an image and boots it (`__main__`, `image`, `boot`). The guest's half (`inside` and what it
imports) runs from the host's own file system, mounted read-only, so it tests the package as installed.
"""
