"""Runs tests of other projects against this one."""
