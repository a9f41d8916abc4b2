"""Smaller models: fewer bits, fewer weights, a student for a teacher, and files for others.

Chapter:  chapters/07_compression.ipynb
"""
