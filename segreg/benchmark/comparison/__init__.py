"""Models side by side: the scores of their runs on the same images, with intervals and costs."""
