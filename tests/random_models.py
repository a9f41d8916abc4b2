"""Our models with random weights large enough that no two of them agree by chance."""

import torch
from torch import nn

from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM


def random_model(config: ModelConfig, seed: int = 0, std: float = 0.25) -> DecoderLM:
    """A decoder in eval mode; torch's global generator stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DecoderLM(config).eval()
        for weight in model.parameters():
            nn.init.normal_(weight, std=std)
    return model
