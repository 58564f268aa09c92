"""Tests with the running kernel as the oracle: the same vectors go through its system calls and through the package."""
