"""Other projects' tests, run against this one."""
