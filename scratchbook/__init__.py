"""Language models from first principles, one small module per chapter."""

__version__ = "0.1.0"
