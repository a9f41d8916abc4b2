"""A small model learns from a large one: what the large one believes, sees and looks at.

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchbook.compression.files import digest
from scratchbook.data.batches import IGNORED, Batches
from scratchbook.generation import eval_mode
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.training.identity import read_config
from scratchbook.training.loop import Trained, train
from scratchbook.training.settings import TrainConfig


@dataclass(frozen=True)
class Distillation:
    """How much each part counts in the loss of a student; a part of weight 0 costs nothing.

    `hard` weighs the cross-entropy of the text, `soft` the teacher's distributions at
    `temperature`, `features` the vectors behind each block, `attention` the attention maps.

    Raises:   ValueError for a weight or temperature that makes no sense
    Chapter:  chapters/07_compression.ipynb
    """

    hard: float = 0.5
    soft: float = 0.5
    temperature: float = 2.0
    features: float = 0.0
    attention: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.hard, self.soft, self.features, self.attention)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(f"{self}: weights are numbers from 0 up, and one is above 0")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be a number above 0")


def soft_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
                    ) -> Tensor:
    """How far the student's distribution is from the teacher's, both flattened by `temperature`.

    The Kullback-Leibler divergence times the square of the temperature: the gradient of the
    divergence alone would shrink by about that square, and the weight beside a hard loss with it.

    Shapes:   logits (..., vocab) -> (...), nats
    Paper:    Hinton, Vinyals and Dean (2015), arXiv:1503.02531, section 2
    Chapter:  chapters/07_compression.ipynb
    """
    student = (student_logits.float() / temperature).log_softmax(dim=-1)
    teacher = (teacher_logits.float() / temperature).log_softmax(dim=-1)
    counts = teacher > -torch.inf  # what a teacher forbids costs nothing
    parts = teacher.exp() * (teacher - student)
    return temperature**2 * torch.where(counts, parts, 0.0).sum(dim=-1)


def feature_loss(student: Tensor, teacher: Tensor, projector: nn.Module) -> Tensor:
    """The mean squared difference of the vectors, the student's brought to the teacher's width.

    Shapes:   student (batch, time, d_model), teacher (batch, time, d_teacher) -> (batch, time)
    Paper:    Romero et al. (2014), arXiv:1412.6550, equation 3
    Chapter:  chapters/07_compression.ipynb
    """
    return (projector(student).float() - teacher.float()).square().mean(dim=-1)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence of where each query looks; maps are averaged where the heads are not as many.

    Shapes:   (batch, heads, time, keys), heads may differ -> (batch, time), nats
    Paper:    Wang et al. (2020), arXiv:2002.10957, section 3.1
    Chapter:  chapters/07_compression.ipynb
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(dim=1, keepdim=True), teacher.mean(dim=1, keepdim=True)
    student, teacher = student.float(), teacher.float()  # 1e-9 is zero in fp16
    # xlogy is 0 where a weight is 0: what the causal mask hides
    ratio = torch.xlogy(teacher, teacher) - teacher * student.clamp_min(1e-9).log()
    return ratio.sum(dim=-1).mean(dim=1)


class Teacher:
    """A model that is asked and never changed: no gradient, no dropout, answers kept.

    `model` is one of ours, or one of transformers' (`attn_implementation="eager"` where its
    attention maps are wanted). Up to `cache_bytes` of logits are kept, for rows of ids that come
    again without a mask, where logits are all that is asked; what came first stays, because rows
    that return in turn would all be let go just before they are needed. Rows are then read one
    at a time: an answer is the same bit for bit whether it was kept or not, so that a run can
    resume.

    Shapes:   ids (batch, time) -> logits (batch, time, vocab)
    Chapter:  chapters/07_compression.ipynb
    """

    def __init__(self, model: nn.Module, cache_bytes: int = 0):
        self.model, self.cache_bytes = model, cache_bytes
        self.kept: dict[bytes, Tensor] = {}
        self.kept_bytes = self.hits = 0

    def __call__(self, ids: Tensor, **options: Tensor) -> Tensor:
        """Its logits for every position."""
        if not self.cache_bytes or options:
            return self.read(ids, False, False, **options)[0]
        return torch.cat([self._row(row) for row in ids.split(1)])

    @torch.no_grad()
    def read(self, ids: Tensor, features: bool, attention: bool, **options: Tensor
             ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits, and for every layer the vectors behind it and its attention map."""
        with eval_mode(self.model):
            return read(self.model, ids, features, attention, **options)

    def _row(self, row: Tensor) -> Tensor:
        key = row.long().cpu().numpy().tobytes()
        if key in self.kept:
            self.hits += 1
            return self.kept[key]
        logits = self.read(row, False, False)[0]
        size = logits.numel() * logits.element_size()
        if self.kept_bytes + size <= self.cache_bytes:
            self.kept[key], self.kept_bytes = logits, self.kept_bytes + size
        return logits

    def digest(self) -> str:
        """A hash of all its weights: which teacher this is."""
        return digest(self.model.state_dict())[:32]


def read(model: nn.Module, ids: Tensor, features: bool, attention: bool, **options: Tensor
         ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """What a model says, and on request what it thought on the way, layer by layer.

    Shapes:   ids (batch, time) -> logits (batch, time, vocab),
              vectors (batch, time, d_model) each, maps (batch, heads, time, time) each
    Raises:   ValueError when a model that is not ours is to obey a mask, or shows no map
    Chapter:  chapters/07_compression.ipynb
    """
    vectors: list[Tensor] = []
    maps: list[Tensor] = []
    if not isinstance(model, DecoderLM):
        return _read_theirs(model, ids, features, attention, **options)

    def look(block: nn.Module, inputs: tuple, output: Tensor) -> None:
        vectors.append(output)
        if attention:  # asked a second time: the pass itself need not build the weights
            x, mask, _, positions = inputs
            x = x if block.layout == "post" else block.attention_norm(x)
            maps.append(block.attention(x, mask, None, positions, return_weights=True)[1])

    hooks = [block.register_forward_hook(look) for block in model.blocks
             if features or attention]
    try:
        logits = type(model).forward(model, ids, **options)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, vectors, maps


def _read_theirs(model: nn.Module, ids: Tensor, features: bool, attention: bool,
                 **options: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    if options:
        raise ValueError(f"a teacher of type {type(model).__name__} cannot be given "
                         f"{', '.join(options)}: load it by load_pretrained, or use Windows")
    vectors: list[Tensor] = []

    def look(block: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
        vectors.append(output if isinstance(output, Tensor) else output[0])

    # hooks, because the last of `hidden_states` has been through the final norm already
    hooks = [block.register_forward_hook(look) for block in _their_blocks(model) if features]
    try:
        out = model(ids, output_attentions=attention, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    maps = list(out.attentions or []) if attention else []
    if attention and (not maps or maps[0] is None):
        raise ValueError(f"{type(model).__name__} shows no attention maps: load it with "
                         "attn_implementation='eager'")
    return out.logits, vectors, maps


def _their_blocks(model: nn.Module) -> nn.ModuleList:
    size = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == size:
            return module
    raise ValueError(f"{type(model).__name__} has no list of its {size} layers to look behind")


def matching_layers(student_layers: int, teacher_layers: int) -> list[int]:
    """Which layer of the teacher each layer of the student is compared with; last with last."""
    return [-(-(layer + 1) * teacher_layers // student_layers) - 1
            for layer in range(student_layers)]


class _WithLoss:
    """What the training loop gets for logits: it brings a loss of its own.

    The loop asks torch for the cross-entropy of logits and targets, and torch asks an argument
    that defines `__torch_function__` instead of computing it. So the loop needs no change, and
    targets that do not count, micro-batches and precisions are dealt with as always.
    """

    def __init__(self, logits: Tensor, hard: float, extra: Tensor):
        self.logits, self.hard, self.extra = logits, hard, extra  # extra: (batch, time)

    def float(self) -> _WithLoss:
        return self

    def flatten(self, *_: int) -> _WithLoss:
        return self

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        if function is not F.cross_entropy or kwargs.get("reduction") != "sum":
            return NotImplemented
        own, targets = args
        counted = targets.flatten() != IGNORED
        text = F.cross_entropy(own.logits.float().flatten(0, 1), targets.flatten(),
                               reduction="sum", ignore_index=IGNORED) if own.hard else 0.0
        return own.hard * text + own.extra.flatten()[counted].sum()


@contextmanager
def distilling(student: DecoderLM, teacher: Teacher | nn.Module, how: Distillation
               ) -> Iterator[DecoderLM]:
    """Within the block, what the student learns from `train` is its teacher, as `how` weighs it.

    Its validation loss stays that of the text. Its projectors, where features are matched, are
    part of it within the block, so that a checkpoint holds them and a run resumes exactly.

    Raises:   ValueError for a teacher that is the student, or has other tokens
    Chapter:  chapters/07_compression.ipynb
    """
    teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
    _check_pair(student, teacher.model)
    plain = student.forward
    if how.features:
        add_projectors(student, teacher.model)

    def forward(ids: Tensor, *rest: Any, **options: Any) -> Any:
        if not student.training:
            return plain(ids, *rest, **options)
        return _WithLoss(*_losses(student, teacher, how, ids, **options))

    student.forward = forward
    try:
        yield student
    finally:
        del student.forward  # the class's own shows again
        if how.features:
            del student.projectors


def add_projectors(student: DecoderLM, teacher: nn.Module) -> DecoderLM:
    """Give the student a linear map to the teacher's width for each of its layers.

    A run that matched features has them in its checkpoints: to open one, give
    `open_run(folder, wrap=lambda model: add_projectors(model, teacher))`.
    """
    width, generator = _width(teacher), named_generator(0, "projectors")
    student.projectors = nn.ModuleList(
        nn.Linear(student.config.d_model, width, bias=False) for _ in student.blocks)
    for projector in student.projectors:
        nn.init.normal_(projector.weight, std=student.config.d_model**-0.5, generator=generator)
    return student.to(next(student.blocks.parameters()).device)


def distill(student: DecoderLM, teacher: Teacher | nn.Module, data: Batches, config: TrainConfig,
            how: Distillation | None = None, folder: str | Path | None = None, **options: Any
            ) -> Trained:
    """Train a student in place by its teacher; the options are those of `train`.

    A folder keeps which teacher it was and what counted how much.

    Raises:   ValueError for a folder whose run had another teacher or other weights, for
              compile=True, and as `train` and `distilling` do
    Chapter:  chapters/07_compression.ipynb
    """
    how = how or Distillation()
    teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
    if config.compile:
        raise ValueError("compile=True: a distilled student is not compiled, its teacher speaks "
                         "into each of its steps; take compile=False")
    entries = asdict(how) | {"teacher": teacher.digest()}
    if folder is not None and (Path(folder) / "config.json").is_file():
        before = (read_config(Path(folder))["data"] or {}).get("distillation")
        changed = [name for name in entries if (before or {}).get(name) != entries[name]]
        if changed:
            raise ValueError(f"{folder} holds another run: {', '.join(changed)} of its "
                             "distillation differ; give it the same or take another folder")
    source = (options.pop("source", None) or {}) | {"distillation": entries}
    with distilling(student, teacher, how):
        return train(student, data, config, folder, source=source, **options)


def _losses(student: DecoderLM, teacher: Teacher, how: Distillation, ids: Tensor,
            **options: Tensor) -> tuple[Tensor, float, Tensor]:
    """The student's logits, the weight of their cross-entropy, and what is added to it."""
    features, attention = bool(how.features), bool(how.attention)
    logits, vectors, maps = read(student, ids, features, attention, **options)
    extra = torch.zeros(ids.shape, device=ids.device)  # (batch, time)
    if features or attention:
        theirs, their_vectors, their_maps = teacher.read(ids, features, attention, **options)
        pairs = list(enumerate(matching_layers(len(student.blocks),
                                               len(their_vectors or their_maps))))
    else:
        theirs = teacher(ids, **options) if how.soft else logits
    if how.soft:
        extra = extra + how.soft * soft_label_loss(logits, theirs, how.temperature)
    if features:
        parts = [feature_loss(vectors[i], their_vectors[j], student.projectors[i])
                 for i, j in pairs]
        extra = extra + how.features * torch.stack(parts).mean(dim=0)
    if attention:
        parts = [attention_loss(maps[i], their_maps[j]) for i, j in pairs]
        extra = extra + how.attention * torch.stack(parts).mean(dim=0)
    return logits, how.hard, extra


def _check_pair(student: DecoderLM, teacher: nn.Module) -> None:
    if student is teacher:
        raise ValueError("the student is its own teacher: copy the model first (copy.deepcopy)")
    known = teacher.config.vocab_size
    if known != student.config.vocab_size:
        raise ValueError(f"the teacher has vocab_size={known}, the student "
                         f"{student.config.vocab_size}: both must read the same tokens")


def _width(teacher: nn.Module) -> int:
    return getattr(teacher.config, "d_model", None) or teacher.config.hidden_size


@torch.no_grad()
def agreement(student: nn.Module, teacher: nn.Module, data: Batches, batch_size: int = 16
              ) -> dict[str, float]:
    """How alike two models answer held-out text, over every target that counts.

    Shapes:   -> {"agreement": share of positions with the same likeliest token,
              "kl": mean divergence of the student from the teacher in nats}
    Chapter:  chapters/07_compression.ipynb
    """
    same = divergence = counted = 0.0
    ask = partial(read, features=False, attention=False)
    with eval_mode(student, teacher):
        for ids, targets, mask in data.validation(batch_size):
            options = {} if mask is None else {"mask": mask}
            ours, theirs = (ask(model, ids, **options)[0] for model in (student, teacher))
            kept = targets != IGNORED
            same += (ours.argmax(-1) == theirs.argmax(-1))[kept].sum().item()
            divergence += soft_label_loss(ours, theirs)[kept].sum().item()
            counted += kept.sum().item()
    return {"agreement": same / counted, "kl": divergence / counted}
