"""Weights that others trained: read from safetensors, never from a pickle, and proved equal.

Chapter:  chapters/05b_models_and_weights.ipynb
"""

from scratchbook.weights.divergence import Divergence, activations, first_divergence
from scratchbook.weights.families import FAMILIES, read_config
from scratchbook.weights.loading import load_pretrained, save_pretrained

__all__ = ["FAMILIES", "Divergence", "activations", "first_divergence", "load_pretrained",
           "read_config", "save_pretrained"]
