"""Tests of the book's sources, and of the pages built from them."""

from tests.built_site import site

__all__ = ["site"]
