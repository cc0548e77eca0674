"""Models side by side: benches, comparisons, costs, and which encoder works with which decoder."""
