"""What is wrong with a data set, found by reading all of it once."""

from __future__ import annotations

from segreg.data.inspection.checks import Finding, FindingCase
from segreg.data.inspection.report import Report, inspect

__all__ = ["Finding", "FindingCase", "Report", "inspect"]
