"""Masks against torch's and torchao's pruning, soft labels against torch's divergence."""

import copy
import warnings
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch.nn.utils import prune
from torch.sparse import _semi_structured_conversions as semi_structured

from scratchbook.compression.distillation import soft_label_loss
from scratchbook.compression.pruning import (
    linears,
    magnitude_scores,
    masks_of_lowest,
    n_of_m_masks,
    prune_channels,
    wanda_scores,
)
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator

TORCH = f"torch {torch.__version__.split('+')[0]}"
SHARES = (0.0, 0.1, 0.25, 0.5, 0.7, 0.93)
CONFIG = ModelConfig(vocab_size=31, max_seq_len=32, num_layers=2, d_model=24, num_heads=4, d_ff=40)


def build(seed: int = 0) -> DecoderLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DecoderLM(CONFIG).eval()


def wrong_places(ours: dict, model: torch.nn.Module) -> int:
    theirs = {name: layer.weight_mask.bool() for name, layer in linears(model).items()}
    return sum(int((ours[name] != mask).sum()) for name, mask in theirs.items())


def test_masks_of_each_layer_equal_l1_unstructured(parity) -> None:
    wrong = []
    for seed, share in enumerate(SHARES):
        model = build(seed)
        ours = masks_of_lowest(magnitude_scores(model), share, "layer")
        for layer in linears(model).values():
            prune.l1_unstructured(layer, "weight", share)
        wrong.append(wrong_places(ours, model))
    assert parity("Magnitude masks per layer", against=f"{TORCH} prune.l1_unstructured",
                  error=max(wrong), cases=len(wrong))


def test_masks_over_all_layers_equal_global_unstructured(parity) -> None:
    wrong = []
    for seed, share in enumerate(SHARES):
        model = build(seed)
        ours = masks_of_lowest(magnitude_scores(model), share, "global")
        prune.global_unstructured([(layer, "weight") for layer in linears(model).values()],
                                  prune.L1Unstructured, amount=share)
        wrong.append(wrong_places(ours, model))
    assert parity("Magnitude masks over all layers", against=f"{TORCH} prune.global_unstructured",
                  error=max(wrong), cases=len(wrong))


def test_channels_that_stay_are_those_of_ln_structured(parity) -> None:
    wrong = []
    for seed, d_ff in enumerate((40, 39, 24, 10, 1)):
        model = build(seed)
        theirs = copy.deepcopy(model)
        kept = prune_channels(model, magnitude_scores(model), d_ff)
        for block, channels in zip(theirs.blocks, kept, strict=True):
            layer = block.feedforward.down_proj
            prune.ln_structured(layer, "weight", amount=40 - d_ff, n=2, dim=1)
            stays = layer.weight_mask.bool().any(dim=0).nonzero()[:, 0]
            wrong.append(0 if torch.equal(stays, channels) else 1)
    assert parity("Feed-forward channels that stay", against=f"{TORCH} prune.ln_structured",
                  error=max(wrong), cases=len(wrong))


def wanda_of_torchao(model: DecoderLM, batches: list, **options) -> DecoderLM:
    from torchao.sparsity.wanda import WandaSparsifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparsifier = WandaSparsifier(**options)
        sparsifier.prepare(model, [{"tensor_fqn": f"{name}.weight"} for name in linears(model)])
        for ids in batches:
            model(ids)
        for layer in linears(model).values():  # it sums squares and, unlike the paper, takes no
            layer.activation_post_process.norm.sqrt_()  # root: we do, the rest is theirs
        sparsifier.step()
    return model


def test_wanda_masks_equal_those_of_torchao(parity) -> None:
    wrong = []
    for options in ({"sparsity_level": 0.5}, {"sparsity_level": 0.25},
                    {"semi_structured_block_size": 4}):
        generator = named_generator(0, str(options))
        batches = [torch.randint(31, (3, 17), generator=generator) for _ in range(3)]
        model = build()
        scores = wanda_scores(model, batches)
        ours = (n_of_m_masks(scores) if "sparsity_level" not in options
                else masks_of_lowest(scores, options["sparsity_level"], "layer"))
        theirs = wanda_of_torchao(build(), batches, **options)
        for name, mask in ours.items():
            other = theirs.get_submodule(name).parametrizations.weight[0].mask.bool()
            wrong.append(int((mask != other).sum()))
    assert parity("Wanda masks, free and 2:4", against=f"torchao {version('torchao')} "
                  "WandaSparsifier, its missing root put in", error=max(wrong), cases=len(wrong))


def test_two_of_four_is_what_the_sparse_kernels_store(parity) -> None:
    """torch's compression of 2:4 matrices keeps two values and their places: nothing is lost."""
    errors = []
    for seed in range(5):
        weight = torch.randn(64, 128, generator=named_generator(seed, "semi")).half()
        mask = n_of_m_masks({"weight": weight.abs()})["weight"]
        pruned = weight * mask
        packed, places = semi_structured.sparse_semi_structured_from_dense_cutlass(pruned)
        back = semi_structured.sparse_semi_structured_to_dense_cutlass(packed, places)
        errors.append((back - pruned).abs().max().item())
        assert packed.numel() == weight.numel() // 2
    assert parity("2:4 masks", against=f"{TORCH} semi-structured storage", error=max(errors),
                  cases=len(errors))


def test_soft_labels_equal_kl_div(parity) -> None:
    errors = []
    for seed, temperature in enumerate((0.5, 1.0, 2.0, 4.0, 10.0)):
        generator = named_generator(seed, "soft")
        student, teacher = (torch.randn(3, 5, 50, generator=generator) for _ in range(2))
        results = []
        for loss in (soft_label_loss, by_torch):
            leaf = student.clone().requires_grad_()
            out = loss(leaf, teacher, temperature)
            out.sum().backward()
            results.append((out.detach(), leaf.grad))
        errors += [(a - b).abs().max().item() for a, b in zip(*results, strict=True)]
    assert parity("Soft-label loss and its gradient", against=f"{TORCH} F.kl_div",
                  error=max(errors), bound=1e-6, cases=len(errors))


def by_torch(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    return temperature**2 * F.kl_div(
        (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1),
        reduction="none", log_target=True).sum(-1)
