"""Modules that tests share: faulty memory, iterators of every kind, the naive model, places on disk."""
