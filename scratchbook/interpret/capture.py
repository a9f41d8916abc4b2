"""What a model looked at while it ran, by hooks: the model does not change, nor does its answer.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from scratchbook.interpret.probes import THEIRS, Meeting, Probe, probe_for

KINDS = ("attention", "queries", "keys", "values", "residuals")


class Seen:
    """What `capture` kept of the model's last call: one dictionary a kind, its keys the layers.

    attention   (batch, heads, time, keys): who looked at whom, each row a distribution
    queries     (batch, heads, time, head_dim), normed and turned as they meet the keys
    keys        (batch, kv_heads, keys, head_dim), those of a cache included
    values      (batch, kv_heads, keys, value_dim)
    residuals   (batch, time, d_model): the stream as it enters layer i; under i + 1, as it leaves

    All of it is float32, detached, and a copy. `modules` are the attentions and `names` their
    names in the model, by layer. A second call writes over the first; `calls` counts them.

    Chapter:  chapters/06d_seeing_attention.ipynb
    """

    def __init__(self, modules: list[nn.Module], names: list[str], max_bytes: int):
        self.attention: dict[int, Tensor] = {}
        self.queries: dict[int, Tensor] = {}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.residuals: dict[int, Tensor] = {}
        self.modules, self.names, self.max_bytes = modules, names, max_bytes
        self.calls = 0

    @property
    def num_bytes(self) -> int:
        """The memory that everything kept so far takes."""
        return sum(4 * x.numel() for kind in KINDS for x in getattr(self, kind).values())

    def stacked(self) -> Tensor:
        """The attention of all captured layers: (layers, batch, heads, time, keys).

        Raises:   ValueError when nothing was captured, or layers differ in their heads or keys
        """
        shapes = {tuple(x.shape) for x in self.attention.values()}
        if len(shapes) != 1:
            raise ValueError(f"the captured attention has shapes {sorted(shapes)}: run the model "
                             "within capture(...), and read layers that differ one by one")
        return torch.stack([self.attention[layer] for layer in sorted(self.attention)])

    def make_room(self, kind: str, layer: int, shape: Iterable[int]) -> None:
        """Let go of what an earlier call left there, and refuse what would not fit.

        Raises:   ValueError, before anything is computed or copied
        """
        getattr(self, kind).pop(layer, None)
        shape = tuple(shape)
        needed = self.num_bytes + 4 * torch.Size(shape).numel()
        if needed > self.max_bytes:
            raise ValueError(
                f"the {kind} of layer {layer}, {shape}, would make {needed:,} bytes, more than "
                f"max_bytes={self.max_bytes:,}: keep fewer kinds or layers, a shorter text, or "
                "raise max_bytes")


@contextmanager
def capture(model: nn.Module, keep: Iterable[str] = ("attention",),
            layers: Iterable[int] | None = None, max_bytes: int = 1 << 30) -> Iterator[Seen]:
    """Keep what the attentions of `model` see while the block runs.

        with capture(model, keep=("attention", "residuals")) as seen:
            model(ids)
        seen.attention[0]  # (batch, heads, time, keys)

    The weights are worked out from the queries and keys that hooks hear, in float32, so fast
    implementations that never build them can stay. The model's output is the same bit for bit.
    The hooks end with the block, also after an exception. `layers` counts attentions from 0 in
    the order in which the model holds them; negative numbers count from the end.

    Raises:   ValueError for a model without a known attention, an unknown kind or layer, and,
              while the model runs, for what would take more than `max_bytes`
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    keep = _known_kinds(keep)
    probes = attentions(model)
    chosen = _known_layers(layers, len(probes))
    seen = Seen([probe.module for _, probe in probes], [name for name, _ in probes], max_bytes)
    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(_counter(seen)).remove)
        for layer in chosen:
            name, probe = probes[layer]
            if set(keep) - {"residuals"}:
                handles = [*probe.attach(), probe.module.register_forward_hook(
                    _keeper(seen, probe, layer, keep))]
            else:
                handles = []
            if "residuals" in keep:
                handles += _watch_stream(seen, model, name, layer)
            for handle in handles:
                hooks.callback(handle.remove)
        yield seen


def attentions(model: nn.Module) -> list[tuple[str, Probe]]:
    """The names of the model's attentions with a fresh probe for each, in the model's order.

    Raises:   ValueError when it has none that is known
    Chapter:  chapters/06d_seeing_attention.ipynb
    """
    found = [(name, probe) for name, module in model.named_modules()
             if (probe := probe_for(module)) is not None]
    if not found:
        raise ValueError(f"{type(model).__name__} holds no attention that can be read: known are "
                         "MultiHeadAttention and LatentAttention of this course and "
                         f"{', '.join(sorted(THEIRS))} of transformers")
    return found


def _counter(seen: Seen):
    def count(module: nn.Module, args: tuple) -> None:
        seen.calls += 1
    return count


def _keeper(seen: Seen, probe: Probe, layer: int, keep: tuple[str, ...]):
    """A hook for the end of one attention: put together what was heard, and copy what is wanted."""
    @torch.no_grad()
    def hook(module: nn.Module, args: tuple, output: object) -> None:
        # autocast would round the products that are to be exact
        with torch.autocast(_device_type(module), enabled=False):
            meeting = probe.meeting()
            for kind in keep:
                if kind == "attention":
                    seen.make_room(kind, layer, _table(meeting))
                    seen.attention[layer] = meeting.weights()
                elif kind != "residuals":
                    _copy(seen, kind, layer, getattr(meeting, kind))
    return hook


def _device_type(module: nn.Module) -> str:
    kind = next((p.device.type for p in module.parameters()), "cpu")
    return "cpu" if kind == "meta" else kind


def _table(meeting: Meeting) -> tuple[int, ...]:
    return (*meeting.queries.shape[:3], meeting.keys.shape[2])


def _copy(seen: Seen, kind: str, layer: int, x: Tensor) -> None:
    seen.make_room(kind, layer, x.shape)
    getattr(seen, kind)[layer] = x.detach().to(torch.float32, copy=True)


def _watch_stream(seen: Seen, model: nn.Module, name: str, layer: int) -> list:
    """Hooks before and behind the layer that holds the attention `name`."""
    block = model.get_submodule(_layer_of(name))

    def enters(module: nn.Module, args: tuple, kwargs: dict) -> None:
        _copy(seen, "residuals", layer, args[0] if args else next(iter(kwargs.values())))

    def leaves(module: nn.Module, args: tuple, output: object) -> None:
        _copy(seen, "residuals", layer + 1, output[0] if isinstance(output, tuple) else output)

    return [block.register_forward_pre_hook(enters, with_kwargs=True),
            block.register_forward_hook(leaves)]


def _layer_of(name: str) -> str:
    """The part of the model that an attention belongs to: the nearest that has a number, or the
    one that holds it."""
    if not name:
        raise ValueError("the model is an attention itself: it has no residual stream to keep")
    words = name.split(".")[:-1]
    for end in range(len(words), 0, -1):
        if words[end - 1].isdigit():
            return ".".join(words[:end])
    return ".".join(words)


def _known_kinds(keep: Iterable[str]) -> tuple[str, ...]:
    if isinstance(keep, str):
        raise ValueError(f"keep={keep!r} is one string: write ({keep!r},)")
    keep = tuple(keep)
    unknown = [kind for kind in keep if kind not in KINDS]
    if unknown or not keep:
        raise ValueError(f"keep={keep} must name some of {', '.join(KINDS)}")
    return keep


def _known_layers(layers: Iterable[int] | None, count: int) -> list[int]:
    if layers is None:
        return list(range(count))
    layers = list(layers)
    for layer in layers:
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} is none of the {count} attentions, 0..{count - 1}")
    return sorted({layer % count for layer in layers})
