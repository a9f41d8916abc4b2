"""One layer of a transformer: attention and feed-forward on a stream that both add to.

Chapter:  chapters/05_blocks.ipynb
"""

from __future__ import annotations

from torch import Tensor, nn

LAYOUTS = ("pre", "post", "parallel", "sandwich")


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream `x`.

    The parts come in built; `layout` says where the norms stand. "pre": before each part, the
    stream itself stays untouched. "post": after each sum, as in 2017. "parallel": both parts
    read the same normed stream, so there is one norm. "sandwich": before and after each part.

    Shapes:   x (batch, time, d_model) -> (batch, time, d_model)
    Raises:   ValueError for an unknown layout, or norms that do not fit it
    Paper:    Xiong et al. (2020), arXiv:2002.04745, figure 1; for "parallel" Wang and
              Komatsuzaki (2021), GPT-J; for "sandwich" Ding et al. (2021), arXiv:2105.13290
    Chapter:  chapters/05_blocks.ipynb
    """

    def __init__(
        self,
        attention: nn.Module,
        feedforward: nn.Module,
        attention_norm: nn.Module,
        feedforward_norm: nn.Module | None = None,
        layout: str = "pre",
        dropout: float = 0.0,
        attention_post_norm: nn.Module | None = None,
        feedforward_post_norm: nn.Module | None = None,
    ):
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
        _check_norms(layout, feedforward_norm, attention_post_norm, feedforward_post_norm)
        self.layout = layout
        self.attention, self.feedforward = attention, feedforward
        self.attention_norm, self.feedforward_norm = attention_norm, feedforward_norm
        self.attention_post_norm = attention_post_norm
        self.feedforward_post_norm = feedforward_post_norm
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: object | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Read the stream, and write to it twice."""
        if self.layout == "parallel":
            normed = self.attention_norm(x)
            written = self.attention(normed, mask, cache, positions) + self.feedforward(normed)
            return x + self.dropout(written)
        if self.layout == "post":
            x = self.attention_norm(x + self.dropout(self.attention(x, mask, cache, positions)))
            return self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        written = self.attention(self.attention_norm(x), mask, cache, positions)
        x = x + self.dropout(_through(self.attention_post_norm, written))
        written = self.feedforward(self.feedforward_norm(x))
        return x + self.dropout(_through(self.feedforward_post_norm, written))


def _through(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _check_norms(layout: str, feedforward_norm: nn.Module | None, *post_norms: nn.Module | None
                 ) -> None:
    if (feedforward_norm is None) != (layout == "parallel"):
        raise ValueError(f"layout={layout!r}: the parallel block has one norm, the others need "
                         "feedforward_norm as well")
    given = sum(norm is not None for norm in post_norms)
    if given != (2 if layout == "sandwich" else 0):
        raise ValueError(f"layout={layout!r} with {given} norms behind the parts: the sandwich "
                         "has two, the others none")
