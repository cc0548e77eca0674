"""Which encoder works with which decoder: every pair built, trained for a step and tried at several sizes."""

from __future__ import annotations
