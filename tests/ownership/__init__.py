"""Scenarios that each need a process of their own; test_fault_ownership.py runs them."""
