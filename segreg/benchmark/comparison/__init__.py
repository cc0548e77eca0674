"""Models side by side: what runs reached on the same pictures, with its uncertainty, next to what they cost."""
