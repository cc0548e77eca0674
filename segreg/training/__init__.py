"""Training: the loop, its loss, checkpoints and resuming."""
