"""A new package of parts: complete, tested and ready to be published, from templates beside this file."""

from __future__ import annotations

from segreg.testing.scaffold.names import Names, names_of
from segreg.testing.scaffold.package import kinds_of, write_package

__all__ = ["Names", "kinds_of", "names_of", "write_package"]
