"""Scenarios that need a process each; test_fault_ownership.py runs them."""
