"""From batches to weights: the loop, what takes part in it, and how it goes on after a stop."""
