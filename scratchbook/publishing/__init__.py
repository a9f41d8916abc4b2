"""Turns the chapters into a book: run them, keep them tidy, build and publish the pages."""
