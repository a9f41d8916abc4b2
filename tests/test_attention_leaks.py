"""assert_no_future_leak: finds every planted leak, places it, and leaves the model as it was."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scratchbook.attention import FutureLeak, assert_no_future_leak, attend, causal_mask
from scratchbook.runtime import named_generator

VOCAB, TIME = 11, 8


class Reader(nn.Module):
    """Token and position vectors, one layer that mixes positions, logits."""

    def __init__(self, mix: nn.Module | None = None, dropout: float = 0.0):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCAB, 16)
        self.position_embedding = nn.Embedding(64, 16)
        self.dropout = nn.Dropout(dropout)
        self.mix = mix
        self.lm_head = nn.Linear(16, VOCAB)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.token_embedding(ids) + self.position_embedding(positions)
        return self.lm_head(self.mix(self.dropout(x)))


class Encoder(nn.Module):
    """torch's own layer, with or without the mask."""

    def __init__(self, causal: bool):
        super().__init__()
        self.causal = causal
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = ~causal_mask(x.shape[1]) if self.causal else None
        return self.layer(x, src_mask=mask)


class Window(nn.Module):
    """Adds the vectors that stand `offset` steps later: the leak has a known place."""

    def __init__(self, offset: int, first: int = 0, scale: float = 1.0):
        super().__init__()
        self.offset, self.first, self.scale = offset, first, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later = torch.zeros_like(x)
        if self.offset > 0:
            later[:, : -self.offset] = x[:, self.offset :]
        else:
            later[:, -self.offset :] = x[:, : x.shape[1] + self.offset]
        later[:, : self.first] = 0
        return x + self.scale * later


def build(mix: nn.Module, **options) -> Reader:
    torch.manual_seed(0)
    return Reader(mix, **options)


METHODS = ["auto", "gradient", "mutation"]


@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_layer_without_a_mask_is_caught(method: str) -> None:
    with pytest.raises(FutureLeak) as leak:
        assert_no_future_leak(build(Encoder(causal=False)), VOCAB, method=method)
    assert (leak.value.position, leak.value.source) == (0, 1)
    assert leak.value.effect > 0
    assert "output at position 0 sees the input at position 1" in str(leak.value)
    assert "causal mask" in str(leak.value)


@pytest.mark.parametrize("method", METHODS)
def test_the_causal_encoder_layer_passes(method: str) -> None:
    assert_no_future_leak(build(Encoder(causal=True)), VOCAB, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("offset, first", [(1, 0), (3, 0), (2, 4), (7, 0)])
def test_the_first_leak_is_placed(method: str, offset: int, first: int) -> None:
    with pytest.raises(FutureLeak) as leak:
        assert_no_future_leak(build(Window(offset, first)), VOCAB, seq_len=TIME, method=method)
    assert (leak.value.position, leak.value.source) == (first, first + offset)


@pytest.mark.parametrize("method", METHODS)
def test_looking_back_is_no_leak(method: str) -> None:
    assert_no_future_leak(build(Window(-2)), VOCAB, seq_len=TIME, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_faint_leak_is_still_a_leak(method: str) -> None:
    with pytest.raises(FutureLeak):
        assert_no_future_leak(build(Window(1, scale=1e-3)), VOCAB, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_shifted_by_one_is_caught(method: str) -> None:
    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return attend(x, x, x, causal_mask(x.shape[1] + 1)[1:, :-1])

    with pytest.raises(FutureLeak) as leak:
        assert_no_future_leak(build(Shifted()), VOCAB, seq_len=TIME, method=method)
    assert (leak.value.position, leak.value.source) == (0, 1)


def test_statistics_over_time_leak() -> None:
    class OverTime(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(dim=1, keepdim=True)

    with pytest.raises(FutureLeak):
        assert_no_future_leak(build(OverTime()), VOCAB)


def test_probabilities_do_not_hide_a_leak() -> None:
    # Their sum is one whatever happens, so the gradient of a plain sum would be zero.
    with pytest.raises(FutureLeak) as leak:
        assert_no_future_leak(nn.Sequential(build(Window(1)), nn.Softmax(-1)), VOCAB,
                              method="gradient")
    assert leak.value.effect > 1e-3, "more than the rounding of a sum that is one"


def test_vectors_as_inputs() -> None:
    x = torch.randn(2, TIME, 16, generator=named_generator(0))
    assert_no_future_leak(Encoder(causal=True), inputs=x)
    with pytest.raises(FutureLeak, match="gradient"):
        assert_no_future_leak(Encoder(causal=False), inputs=x)
    assert not x.requires_grad and x.grad is None


def test_without_an_embedding_the_tokens_are_changed() -> None:
    def one_hot(ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(ids, VOCAB).float()

    assert_no_future_leak(lambda ids: one_hot(ids).cumsum(1), VOCAB)
    with pytest.raises(FutureLeak) as leak:
        assert_no_future_leak(lambda ids: one_hot(ids).flip(1).cumsum(1).flip(1), VOCAB)
    assert leak.value.method == "mutation"
    with pytest.raises(ValueError, match="use method='mutation'"):
        assert_no_future_leak(one_hot, VOCAB, method="gradient")


class Wrapped(nn.Module):
    """Returns what larger models return: a tuple, or an object with .logits."""

    def __init__(self, inner: nn.Module, style: str):
        super().__init__()
        self.inner, self.style = inner, style

    def forward(self, ids: torch.Tensor):
        logits = self.inner(ids)
        return (logits, None) if self.style == "tuple" else SimpleNamespace(**{self.style: logits})


@pytest.mark.parametrize("style", ["tuple", "logits", "last_hidden_state"])
def test_outputs_that_are_not_tensors(style: str) -> None:
    assert_no_future_leak(Wrapped(build(Encoder(causal=True)), style), VOCAB)
    with pytest.raises(FutureLeak):
        assert_no_future_leak(Wrapped(build(Encoder(causal=False)), style), VOCAB)
    with pytest.raises(ValueError, match="returns a SimpleNamespace; wrap it"):
        assert_no_future_leak(Wrapped(build(Encoder(causal=True)), "answer"), VOCAB)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_model_is_left_as_it_was(causal: bool, dtype: torch.dtype) -> None:
    model = build(Encoder(causal), dropout=0.5).to(dtype).train()
    model.lm_head.eval()
    model.token_embedding.weight.requires_grad_(False)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    random_state = torch.get_rng_state()
    with torch.no_grad():
        if causal:
            assert_no_future_leak(model, VOCAB)
        else:
            with pytest.raises(FutureLeak):
                assert_no_future_leak(model, VOCAB)
        assert not torch.is_grad_enabled()
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.dtype == dtype for value in model.state_dict().values())
    assert model.token_embedding.weight.requires_grad is False
    assert (model.lm_head.weight.grad == 1).all() and model.lm_head.bias.grad is None
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_what_cannot_be_tested_says_why() -> None:
    model = build(Encoder(causal=True))
    with pytest.raises(ValueError, match="vocab_size=None"):
        assert_no_future_leak(model)
    with pytest.raises(ValueError, match="method='guess' is unknown"):
        assert_no_future_leak(model, VOCAB, method="guess")
    with pytest.raises(ValueError, match="at least 2 steps"):
        assert_no_future_leak(model, inputs=torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(2, 12\) into \(2, 11\)"):
        assert_no_future_leak(lambda ids: model(ids)[:, 0], VOCAB)
    with pytest.raises(ValueError, match="two calls with the same input differ"):
        assert_no_future_leak(lambda ids: nn.functional.dropout(model(ids), 0.5), VOCAB)
    with pytest.raises(ValueError, match="vectors need method='gradient'"):
        assert_no_future_leak(model, inputs=torch.zeros(1, 3, 16), method="mutation")
    with pytest.raises(ValueError, match="all ids are 0"):
        assert_no_future_leak(lambda ids: ids[..., None].float(), inputs=torch.zeros(1, 3).long())


def test_a_stale_cache_between_calls_is_noticed() -> None:
    calls = []

    def remembers(ids: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return ids[..., None].float() + len(calls)

    with pytest.raises(ValueError, match="fresh cache"):
        assert_no_future_leak(remembers, VOCAB)


class Branch(nn.Module):
    """x plus what a layer that may leak says, through a projection and a gate."""

    def __init__(self, causal: bool, projection: float | None, gate: float = 1.0):
        super().__init__()
        self.causal, self.o_proj = causal, nn.Linear(16, 16)
        self.gate = nn.Parameter(torch.full((16,), gate))
        if projection is not None:
            nn.init.constant_(self.o_proj.weight, projection)
            nn.init.zeros_(self.o_proj.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = attend(x, x, x, causal_mask(x.shape[1]) if self.causal else None)
        return x + self.gate * self.o_proj(mixed)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("projection, gate, name", [
    (0.0, 1.0, "mix.o_proj.weight"), (None, 0.0, "mix.gate"), (None, 1e-6, "mix.gate")])
def test_a_zero_output_does_not_hide_a_leak(method, projection, gate, name) -> None:
    model = build(Branch(False, projection, gate))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(FutureLeak, match=name) as leak:
        assert_no_future_leak(model, VOCAB, method=method)
    assert (leak.value.position, leak.value.source) == (0, 1) and name in leak.value.woken
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert_no_future_leak(build(Branch(True, projection, gate)), VOCAB, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_whose_head_is_zero_is_no_way_out(method) -> None:
    for causal in (True, False):
        model = build(Encoder(causal))
        nn.init.zeros_(model.lm_head.weight)
        if causal:
            assert_no_future_leak(model, VOCAB, method=method)
        else:
            with pytest.raises(FutureLeak, match="lm_head.weight"):
                assert_no_future_leak(model, VOCAB, method=method)


def test_what_no_input_moves_is_refused() -> None:
    with pytest.raises(ValueError, match="no input moves any output"):
        assert_no_future_leak(lambda ids: torch.zeros(*ids.shape, 3), VOCAB)
    asleep = build(Branch(False, 0.0))
    with pytest.raises(ValueError, match="Pass the nn.Module itself"):
        assert_no_future_leak(lambda ids: asleep(ids), VOCAB)
    assert_no_future_leak(lambda ids: build(Branch(True, None))(ids), VOCAB)
    assert_no_future_leak(nn.Sequential(nn.Embedding(VOCAB, 4)), VOCAB)  # mixes nothing, rightly
