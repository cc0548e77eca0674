"""Colors, overlays and plots."""
