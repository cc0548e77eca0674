"""Which encoder works with which decoder: every pair built, trained for a step and run at several sizes."""
