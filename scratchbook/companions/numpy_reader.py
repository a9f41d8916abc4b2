"""A packed model read by numpy alone: what it takes where torch is too large.

It imports nothing of this package, so that the file can be copied and run by itself:

    python numpy_reader.py MODEL 17 4 2000        # ids of a prompt -> ids of its continuation

Chapter:  chapters/07_compression.ipynb
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import numpy as np

TYPES = {"F32": np.float32, "U8": np.uint8, "I8": np.int8}
PLAIN = {"feedforward": "swiglu", "norm": "rms", "layout": "pre", "positions": "rope",
         "bias": "none", "qk_norm": False, "window": None, "latent_dim": None}
Past = list[tuple[np.ndarray, np.ndarray]]


class NumpyReader:
    """Greedy writing with a file of `save_compressed` or `save_squeezed`, int8 or int4.

    Codes stay one byte each in memory; a matrix becomes float32 for the length of its product.

    Raises:   ValueError for a model or a scheme that it does not know
    Chapter:  chapters/07_compression.ipynb
    """

    def __init__(self, path: str | Path):
        data = Path(path).read_bytes()
        if data[:6] == b"\xfd7zXZ\0":
            data = lzma.decompress(data)
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        plan = json.loads(header.pop("__metadata__")["plan"])
        self.config, self.layers = plan["config"], plan["layers"]
        self._check()
        self.tensors = {name: np.frombuffer(data[8 + size + entry["data_offsets"][0] :
                                                 8 + size + entry["data_offsets"][1]],
                                            TYPES[entry["dtype"]]).reshape(entry["shape"])
                        for name, entry in header.items()}
        del data  # what follows makes the codes twice as large
        for name in [name for name in self.tensors if name.endswith("packed.codes")]:
            layer = self.layers[name.removesuffix(".packed.codes")]
            if layer["scheme"]["kind"] == "int4":
                self.tensors[name] = unpacked(self.tensors[name], layer["shape"][1])
        for name, first in plan["shared"].items():
            self.tensors[name] = self.tensors[first]

    def _check(self) -> None:
        config = self.config
        odd = [f"{name}={config[name]!r}" for name, value in PLAIN.items() if config[name] != value]
        if config["rope"]["scaling"] != "none":
            odd.append(f"rope scaling {config['rope']['scaling']!r}")
        schemes = [layer["scheme"] for layer in self.layers.values()]
        odd += sorted({f"codes of {s['kind']}, symmetric={s['symmetric']}, double={s['double']}"
                       for s in schemes if s["kind"] not in ("int8", "int4")
                       or not s["symmetric"] or s["double"]})
        if odd:
            raise ValueError(f"this reader does not know {', '.join(odd)}: read the file by "
                             "load_compressed")

    def matrix(self, name: str, rows: object = slice(None)) -> np.ndarray:
        """Some rows of a layer's matrix in float32; (rows, columns)."""
        codes = self.tensors[f"{name}.packed.codes"][rows].astype(np.float32)
        scales = self.tensors[f"{name}.packed.scales"]
        scales = scales if len(scales) == 1 else scales[rows]
        groups = codes.reshape(len(codes), scales.shape[1], -1)
        groups *= scales[..., None]
        return codes

    def multiply(self, x: np.ndarray, name: str) -> np.ndarray:
        """x times the transpose of a layer's matrix; (time, columns) -> (time, rows)."""
        scale = self.tensors.get(f"{name}.input_scale")
        return (x if scale is None else x * scale) @ self.matrix(name).T

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """RMSNorm with the gain of that name."""
        size = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.config["norm_eps"])
        return x / size * self.tensors[f"{name}.weight"]

    def run(self, ids: list[int], past: Past | None = None) -> tuple[np.ndarray, Past]:
        """Logits of new ids behind what came before.

        Shapes:   ids (time,) -> logits (time, vocab), the longer past
        """
        x = self.matrix("token_embedding", np.asarray(ids))
        longer: Past = []
        for layer in range(self.config["num_layers"]):
            block = f"blocks.{layer}"
            added, kept = self.attend(self.norm(x, f"{block}.attention_norm"), block,
                                      past[layer] if past else None)
            x = x + added
            longer.append(kept)
            inner = self.norm(x, f"{block}.feedforward_norm")
            gate = self.multiply(inner, f"{block}.feedforward.gate_proj")
            hidden = gate / (1 + np.exp(-gate)) * self.multiply(inner,
                                                                f"{block}.feedforward.up_proj")
            x = x + self.multiply(hidden, f"{block}.feedforward.down_proj")
        return self.multiply(self.norm(x, "final_norm"), "lm_head"), longer

    def attend(self, x: np.ndarray, block: str, past: tuple[np.ndarray, np.ndarray] | None
               ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """What the attention of a block writes for x (time, d_model), and its keys and values."""
        width, start = self.config["head_dim"], 0 if past is None else past[0].shape[1]
        q, k, v = (self.multiply(x, f"{block}.attention.{part}_proj")
                   .reshape(len(x), -1, width).transpose(1, 0, 2) for part in "qkv")
        places = np.arange(start, start + len(x))
        q, k = (turned(part, places, self.config["rope"]["base"]) for part in (q, k))
        if past is not None:
            k, v = np.concatenate([past[0], k], 1), np.concatenate([past[1], v], 1)
        group = len(q) // len(k)
        scores = q @ np.repeat(k, group, 0).transpose(0, 2, 1) / np.sqrt(np.float32(width))
        scores = np.where(places[:, None] >= np.arange(k.shape[1]), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        read = scores / scores.sum(-1, keepdims=True) @ np.repeat(v, group, 0)
        written = self.multiply(read.transpose(1, 0, 2).reshape(len(x), -1),
                                f"{block}.attention.o_proj")
        return written, (k, v)

    def __call__(self, prompt_ids: list[int], max_new_tokens: int) -> list[int]:
        """The likeliest continuation of one prompt: what `measuring` calls a way to write."""
        ids, past, written = list(prompt_ids), None, []
        for _ in range(max_new_tokens):
            logits, past = self.run(ids, past)
            ids = [int(logits[-1].argmax())]
            written += ids
        return written


def unpacked(packed: np.ndarray, columns: int) -> np.ndarray:
    """Two codes in a byte, the first in its upper half, as int8 from -8 to 7."""
    codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(len(packed), -1)
    return codes[:, :columns].astype(np.int8) - np.int8(8)


def turned(x: np.ndarray, places: np.ndarray, base: float) -> np.ndarray:
    """Rotary positions: coordinate i turns with i + half; x (heads, time, head_dim)."""
    half = x.shape[-1] // 2
    speeds = np.float32(1) / np.float32(base) ** (np.arange(half, dtype=np.float32) / half)
    angles = places[:, None].astype(np.float32) * speeds
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


if __name__ == "__main__":
    print(*NumpyReader(sys.argv[1])([int(word) for word in sys.argv[2:]], 32))
