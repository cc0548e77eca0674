"""Serve trained networks over HTTP, with limits: `segreg serve`. What it needs comes with the extra `serve`."""
