"""Trained networks as files of other runtimes: what is traced, what is noted beside it, how it is proved and run."""
