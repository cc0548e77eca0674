"""From predictions to numbers: metrics over a split, confidence intervals, tests."""
