"""Turns the chapters into a book: runs them, keeps them tidy, says what they cost."""
