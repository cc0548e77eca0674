"""Runs that exist: which there are, what their files say, and what two of them differ in."""
