"""Trained networks as files of other runtimes: what is traced, how a file is run, whether it predicts the same."""
