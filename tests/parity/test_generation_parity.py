"""The filters against transformers' logits processors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.generation import keep_min_p, keep_top_k, keep_top_p

transformers = pytest.importorskip("transformers")

CASES = {
    "top-k": (keep_top_k, lambda v: transformers.TopKLogitsWarper(v), st.integers(1, 60)),
    "top-p": (keep_top_p, lambda v: transformers.TopPLogitsWarper(v),
              st.floats(0.01, 0.99)),
    "min-p": (keep_min_p, lambda v: transformers.MinPLogitsWarper(v), st.floats(0.0, 1.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_filters_keep_what_transformers_keeps(name, parity):
    ours, theirs, values = CASES[name]
    cases = worst = 0

    @settings(max_examples=300, derandomize=True)
    @given(values, st.integers(0, 10_000), st.sampled_from([0.01, 1.0, 5.0, 100.0]), st.booleans())
    def compare(value, seed, size, ties):
        nonlocal cases, worst
        logits = size * torch.randn(4, 50, generator=torch.Generator().manual_seed(seed))
        # ties at the border of top-p are broken by the order of sorting, which nobody promises
        logits = logits.round() if ties and name != "top-p" else logits
        want = theirs(value)(None, logits.clone())
        cases, worst = cases + 4, max(worst, int((ours(logits, value) != want).sum()))

    compare()
    assert parity(f"{name} filter", against="transformers logits processor", error=worst,
                  cases=cases)
