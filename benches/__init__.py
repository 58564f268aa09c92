"""Speed and memory, measured against what Python offers without this package: ``python -m benches``."""
