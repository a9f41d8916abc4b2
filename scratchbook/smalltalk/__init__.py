"""Smalltalk source code: reading its file formats, taking methods apart, preparing a corpus.

Chapter:  chapters/09_smalltalk_model.ipynb
"""
