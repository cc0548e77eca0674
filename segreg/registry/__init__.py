"""What installed packages offer: entry points, entries, the protocols of each kind of part."""
