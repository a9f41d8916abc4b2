"""A trained model adapted to another task, by learning little beside it or all of it.

Chapter:  chapters/08_lora.ipynb
"""
