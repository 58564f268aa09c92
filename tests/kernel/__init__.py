"""The running kernel as the oracle: the same vectors through its system calls and through the package."""
