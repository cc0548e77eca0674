"""Models side by side: what runs reached on the same images, with its uncertainty, next to what they cost."""
