"""Right answers in other styles pass: lists, arrays, float64, fractions, generators, recursion."""

import ast
import cmath
import codecs
import io
import math
import random
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial, reduce
from itertools import chain, count, pairwise, takewhile
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from scratchbook.companions import check
from scratchbook.smalltalk.errors import SmalltalkSyntaxError
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.viable import is_method


def perplexity_by_fractions(train, test, alphabet):
    pairs, firsts, product = Counter(pairwise(train)), Counter(train[:-1]), Fraction(1)
    for a, b in pairwise(test):
        product *= Fraction(pairs[a, b] + 1, firsts[a] + len(alphabet))
    nats = math.log(product.denominator) - math.log(product.numerator)
    return math.exp(nats / (len(test) - 1))


def memoised_pieces(text, logprobs):
    @cache
    def best(end):
        found = [(0.0, 0)] if end == 0 else []
        for begin in range(end):
            if text[begin:end] in logprobs and best(begin):
                found.append((best(begin)[0] + logprobs[text[begin:end]], begin))
        return max(found, default=None)

    if best(len(text)) is None:
        raise ValueError(text)
    ends = [len(text)]
    while ends[-1]:
        ends.append(best(ends[-1])[1])
    return (text[begin:end] for end, begin in reversed(list(pairwise(ends))))


def attend_in_numpy(q, k, v):
    scores = k.numpy().astype(float) @ q.numpy() / math.sqrt(len(q))
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ v.numpy()


def masked_as_lists(scores, mask):
    return scores.double().masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0).tolist()


def backward_by_jacobian(weights, upstream):
    jacobian = torch.diag_embed(weights) - weights[..., :, None] * weights[..., None, :]
    return (jacobian.double() @ upstream.double()[..., None])[..., 0]


def leak_as_a_list(layer, x):
    base = layer(x)
    for t in range(len(x)):
        for s in range(t + 1, len(x)):
            other = x.clone()
            other[s] = torch.randn(x.shape[1])
            if (layer(other)[t] - base[t]).abs().max() > 1e-6:
                return [t, s]
    return None


def roll_as_a_list(kept, new, window):
    seen = [*kept.tolist(), *new.tolist()]
    return [torch.tensor(seen).reshape(-1, new.shape[1]),
            torch.tensor(seen[max(0, len(seen) - window + 1):]).reshape(-1, new.shape[1])]


def rotate_by_complex(x, y, position, speed):
    turned = complex(x, y) * cmath.exp(1j * position * speed)
    return np.array([turned.real, turned.imag])


def swiglu_in_numpy(x, gate, up, down):
    x, gate, up, down = (numbers.detach().numpy().astype(float) for numbers in (x, gate, up, down))
    gated = x @ gate.T
    return gated / (1 + np.exp(-gated.clip(-700))) * (x @ up.T) @ down.T


def mean_loss_of_parts(model, parts, number):
    model.zero_grad()
    counted = sum(int((targets != -100).sum()) for _, targets in parts)
    total = 0.0
    for ids, targets in parts:
        nats = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten(),
                                                 reduction="sum")
        (nats / counted).backward()
        total += nats.item() / counted
    return number(total)


def warmup_in_fractions(step, max_steps, warmup_steps, min_lr_ratio=0.0):
    if step < warmup_steps:
        return Fraction(step + 1, warmup_steps + 1)
    done = Fraction(step - warmup_steps, max_steps - warmup_steps)
    low = Fraction(min_lr_ratio)
    return low + (1 - low) * Fraction((1 + math.cos(math.pi * done)) / 2)


def minhash_in_fractions(first, second, a, b):
    def smallest(numbers, m, c):
        return min((m * x + c) % 2**32 for x in numbers)

    equal = [smallest(first, m, c) == smallest(second, m, c) for m, c in zip(a, b, strict=True)]
    return Fraction(sum(equal), len(equal))


def leaks(training, validation, words):
    def runs(text):
        found = re.findall(r"\w+", text.lower())
        return {tuple(found[i : i + words]) for i in range(len(found) - words + 1)}

    for place, text in enumerate(validation):
        if any(runs(text) & runs(other) for other in training):
            yield place


def loss_in_numpy(batches):
    nats, tokens = 0.0, 0
    for logits, targets in batches:
        scores, right = logits.numpy().astype(float), targets.numpy()
        scores = scores - scores.max(-1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        counts = right != -100
        nats -= np.take_along_axis(logs, np.where(counts, right, 0)[..., None], -1)[counts].sum()
        tokens += counts.sum()
    return np.float32(nats / tokens)


def nucleus_in_numpy(probs, p):
    probs = probs.numpy().astype(float)
    order = np.argsort(-probs, kind="stable")
    before = np.cumsum(probs[order]) - probs[order]
    kept = np.zeros_like(probs)
    kept[order] = np.where(before < p - 1e-6, probs[order], 0)
    return kept / kept.sum()


def split_in_numpy(weight, bias):
    return zip(np.split(weight.numpy().T, 3), np.split(bias.numpy(), 3), strict=True)


def split_in_doubles(weight, bias):
    d = len(weight)
    for part in (slice(0, d), slice(d, 2 * d), slice(2 * d, 3 * d)):
        yield [weight[:, part].double().T.tolist(), bias[part].double()]


def linear_from_state(weight, bias):
    layer = torch.nn.Linear(*weight.shape, device="meta").to_empty(device="cpu")
    layer.load_state_dict({"weight": weight.T, "bias": bias})
    return layer


def first_wrong_in_numpy(model, ids, reference):
    gaps = {}

    def look(name):
        def hook(module, inputs, output):
            want = reference[name].numpy().astype(float)
            gap = np.abs(output.detach().numpy().astype(float) - want).max()
            gaps[name] = gap <= 1e-4 * np.abs(want).max()
        return model.get_submodule(name).register_forward_hook(hook)

    handles = [look(name) for name in reference]
    model(ids)
    for handle in handles:
        handle.remove()
    return next((name for name in reference if not gaps[name]), None)


def soft_labels_in_numpy(student, teacher, temperature):
    def logs(x):
        x = np.asarray(x, dtype=float) / temperature
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    parts = np.exp(logs(teacher)) * (logs(teacher) - logs(student))
    return np.float32(temperature**2 * parts.sum(-1).mean())


def soft_labels_by_torch(student, teacher, temperature):
    student, teacher = ((x / temperature).flatten(0, -2) if x.dim() > 1 else x[None] / temperature
                        for x in (student, teacher))
    return temperature**2 * torch.nn.functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def packed_as_bytes(codes):
    if codes.dim() > 1:
        return [list(packed_as_bytes(row)) for row in codes]
    halves = [int(code) + 8 for code in codes] + [0] * (len(codes) % 2)
    return bytes(16 * a + b for a, b in zip(halves[::2], halves[1::2], strict=True))


def packed_in_numpy(codes):
    codes = codes.numpy().astype(np.int64) + 8
    codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], codes.shape[-1] % 2), int)], -1)
    return (codes[..., ::2] * 16 + codes[..., 1::2]).astype(np.uint8)


def gptq_by_cholesky(weight, column, step, products):
    free = products[column:, column:].double()
    factor = torch.linalg.cholesky(free.inverse(), upper=True)
    moved = weight.double().clone()
    rounded = (moved[:, column] / step).round() * step
    error = (moved[:, column] - rounded) / factor[0, 0]
    moved[:, column:] -= error[:, None] * factor[0]
    return moved.numpy()


def gptq_by_least_squares(weight, column, step, products):
    weight, products = weight.numpy().astype(float), products.numpy().astype(float)
    moved, behind = weight.copy(), slice(column + 1, None)
    moved[:, column] = np.round(weight[:, column] / step) * step
    share = np.linalg.solve(products[behind, behind], products[behind, column])
    moved[:, behind] += np.outer(weight[:, column] - moved[:, column], share)
    return moved.tolist()


def mask_as_lists(scores):
    if scores.dim() > 1:
        return [mask_as_lists(row) for row in scores]
    kept = []
    for start in range(0, len(scores), 4):
        four = scores[start : start + 4].tolist()
        best = sorted(range(4), key=four.__getitem__)[2:]
        kept += [place in best for place in range(4)]
    return kept


def mask_in_numpy(scores):
    fours = scores.numpy().reshape(-1, 4)
    ranks = np.argsort(np.argsort(-fours, axis=-1, kind="stable"), axis=-1)
    return (ranks < 2).reshape(scores.shape)


def cascade_as_generators(tokens):
    places = [-1, *(at for at, token in enumerate(tokens) if token == ";"), len(tokens)]
    first, *rest = (tokens[a + 1:b] for a, b in pairwise(places))
    sign = not re.search(r"[^\W_]", first[-2])
    cut = next((at for at, token in enumerate(first) if token.endswith(":")), -2 if sign else -1)
    yield iter(first[:cut])
    yield (("".join(part[::2]), (each for each in part[1::2])) for part in (first[cut:], *rest))


def cascade_by_recursion(tokens):
    if ";" in tokens:
        last = len(tokens) - 1 - tokens[::-1].index(";")
        receiver, messages = cascade_by_recursion(tokens[:last])
        part = tokens[last + 1:]
        return receiver, (*messages, ["".join(part[::2]), tuple(part[1::2])])
    keywords = [token for token in tokens if token[-1] == ":"]
    size = 2 * len(keywords) or (1 if any(map(str.isalnum, tokens[-2])) else 2)
    part = tokens[-size:]
    return tuple(tokens[:-size]), (["".join(part[::2]), tuple(part[1::2])],)


SENDS = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y,
         "max:": max, "min:": min}


def value_by_regex(tokens):
    def part(text):
        value = Fraction(0)
        for sign, number, unary in re.findall(r"([-+*]?) ?(\d+)((?: [a-z]+\b(?!:))*)", text):
            term = reduce(lambda x, name: -x if name == "negated" else x * x, unary.split(),
                          Fraction(number))
            value = SENDS[sign or "+"](value, term)
        return value

    first, *rest = re.split(r" (max:|min:) ", " ".join(tokens))
    return SENDS[rest[0]](part(first), part(rest[1])) if rest else part(first)


def value_by_recursion(tokens):
    """The last message of the lowest rank is the outermost one."""
    for signs in (("max:", "min:"), ("+", "-", "*")):
        for at in range(len(tokens) - 1, 0, -1):
            if tokens[at] in signs:
                return SENDS[tokens[at]](value_by_recursion(tokens[:at]),
                                         value_by_recursion(tokens[at + 1:]))
    if len(tokens) == 1:
        return int(tokens[0])
    value = value_by_recursion(tokens[:-1])
    return -value if tokens[-1] == "negated" else value ** 2


def fim_in_numpy(ids, start, stop, marks):
    prefix, suffix, middle, end = marks
    ids = np.array(ids, dtype=int)
    made = np.concatenate([[prefix], ids[:start], [suffix], ids[stop:], [middle], ids[start:stop],
                           [end]])
    return made, np.arange(len(made)) > len(ids) - (stop - start) + 2


def fim_as_generators(ids, start, stop, marks):
    def pairs():
        for mark, part, learned in ((marks[0], ids[:start], 0), (marks[1], ids[stop:], 0),
                                    (marks[2], ids[start:stop], 1)):
            yield mark, 0
            yield from ((each, learned) for each in part)
        yield marks[3], 1
    return zip(*pairs(), strict=True)


def bug_by_chance(source):
    for at in random.sample(range(len(source)), len(source)):
        if not is_method(found := source[:at] + source[at + 1:]):
            return np.str_(found)
    return None


def bug_by_the_parser(source, at=0):
    if at == len(source):
        return None
    begun, _, rest = source[:at], source[at], source[at + 1:]
    try:
        parse_method(begun + rest)
    except SmalltalkSyntaxError:
        return "".join((begun, rest))
    return bug_by_the_parser(source, at + 1)


def wilson_as_roots(passed, total):
    """Where the distance to the share is z standard errors: a quadratic equation."""
    if total < 1 or not 0 <= passed <= total:
        raise ValueError(f"passed={passed}, total={total}")
    share, extra = passed / total, 1.96 ** 2 / total
    return np.sort(np.roots([1 + extra, -2 * share - extra, share ** 2]).real)


def wilson_as_a_generator(passed, total):
    if not 0 <= passed <= total or not total:
        raise ValueError(passed, total)
    z2 = Fraction(NormalDist().inv_cdf(0.975)) ** 2
    centre = (passed + z2 / 2) / (total + z2)
    half = Fraction(math.sqrt(z2 * (Fraction(passed * (total - passed), total) + z2 / 4)))
    for sign in (-1, 1):
        yield centre + sign * half / (total + z2)


def watched_from_everywhere(model, kind, x):
    seen, inside = [], set(model.modules())
    handle = register_module_forward_hook(
        lambda module, args, output: seen.append(output.data.clone())
        if isinstance(module, kind) and module in inside else None)
    try:
        return [model(x), tuple(seen)]
    finally:
        handle.remove()


def watched_by_a_stack(model, kind, x):
    seen = []
    with ExitStack() as stack:
        for module in filter(lambda each: isinstance(each, kind), model.modules()):
            stack.callback(module.register_forward_hook(
                lambda module, args, output: seen.append(torch.tensor(output.tolist()))).remove)
        return model(x), seen


def tokens_in_bytes(source, node, spans):
    lines = source.encode().split(b"\n")

    def offset(line, column):
        return len(b"\n".join([*lines[: line - 1], lines[line - 1][:column]]).decode())
    start, stop = (offset(node.lineno, node.col_offset),
                   offset(node.end_lineno, node.end_col_offset))
    return range(bisect_right([end for _, end in spans], start),
                 bisect_left([begin for begin, _ in spans], stop))


def tokens_by_sets(source, node, spans):
    lines = source.split("\n")
    begin = (sum(len(line) + 1 for line in lines[: node.lineno - 1])
             + len(lines[node.lineno - 1].encode()[: node.col_offset].decode()))
    inside = set(range(begin, begin + len(ast.get_source_segment(source, node))))
    return np.array([i for i, (a, b) in enumerate(spans) if inside & set(range(a, b))], dtype=int)


def watched_in_double(model, kind, x):
    answer, seen = watched_by_a_stack(model, kind, x)
    return [answer, tuple(each.double() for each in seen)]


def tokens_by_streams(source, node, spans):
    lines = list(io.StringIO(source, newline="\n"))
    start, stop = (len("".join(lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())
                   for line, column in ((node.lineno, node.col_offset),
                                        (node.end_lineno, node.end_col_offset)))
    places = np.array(spans)
    return np.flatnonzero((places[:, 0] < stop) & (places[:, 1] > start))


def misread_by_loops(weights, values, output):
    for query, row in enumerate(weights.tolist()):
        sizes = [math.sqrt(sum(float(line @ value) ** 2 for line in output)) * weight
                 for value, weight in zip(values, row, strict=True)]
        if sizes.index(max(sizes)) != row.index(max(row)):
            yield query


def misread_in_numpy(weights, values, output):
    brings = weights.numpy() * np.linalg.norm(values.numpy().astype(float) @ output.numpy().T,
                                              axis=1)
    return set(np.flatnonzero(brings.argmax(1) != weights.numpy().argmax(1)))


def misread_by_hypot(weights, values, output):
    lengths = [math.hypot(*(output @ value).tolist()) for value in values]
    for query, row in enumerate(weights.tolist()):
        if row[row.index(max(row))] * lengths[row.index(max(row))] < max(
                weight * length for weight, length in zip(row, lengths, strict=True)):
            yield query


def induction_in_numpy(attention, ids):
    ids, time = np.asarray(ids), len(ids)
    alike = np.tril(ids[:, None] == ids, -1)
    last = np.where(alike.any(1), time - 1 - alike[:, ::-1].argmax(1), time)
    rows = np.flatnonzero(last + 1 < np.arange(time))
    return attention.numpy()[rows, last[rows] + 1].mean() if rows.size else np.float32(0)


def induction_by_fractions(attention, ids):
    pairs = [(query, query - ids[:query][::-1].index(token)) for query, token in enumerate(ids)
             if token in ids[:query] and ids[query - 1] != token]
    return sum(Fraction(float(attention[pair])) for pair in pairs) / Fraction(max(1, len(pairs)))


def swaps_by_recursion(differences):
    gaps = [Fraction(gap).limit_denominator(10**12) for gap in differences]

    def hits(number, total):
        if number == len(gaps):
            return total >= sum(gaps)
        return hits(number + 1, total + gaps[number]) + hits(number + 1, total - gaps[number])

    return Fraction(hits(0, Fraction(0)), 2 ** len(gaps))


def swaps_by_bits(differences):
    signs = 1 - 2 * (np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1)
    sums = signs @ np.asarray(differences)
    return np.mean((sums > sums[0]) | np.isclose(sums, sums[0], rtol=0, atol=1e-12))


def holm_in_numpy(p_values, level=0.05):
    order = np.argsort(p_values, kind="stable")
    fits = np.asarray(p_values)[order] <= level / np.arange(len(p_values), 0, -1)
    return np.sort(order[np.logical_and.accumulate(fits)])


def holm_one_by_one(p_values, level=0.05):
    left = set(range(len(p_values)))
    while left and p_values[least := min(left, key=p_values.__getitem__)] <= level / len(left):
        left.discard(least)
    yield from sorted(set(range(len(p_values))) - left)


def to_read_as_a_generator(ids, cached):
    unread = [place for place in range(len(ids)) if place >= cached] or [len(ids) - 1]
    yield torch.tensor([ids[place] for place in unread])
    yield tuple(unread)


def to_read_in_numpy(ids, cached):
    places = np.arange(len(ids))[min(cached, len(ids) - 1):]
    return np.array(ids)[places], places


def admitted_by_recursion(waiting, places, free, unheld, size):
    if not waiting or not places or math.ceil(waiting[0] / size) > free + len(unheld):
        return 0, ()
    blocks = math.ceil(waiting[0] / size)
    gone = max(blocks - free, 0)
    more, names = admitted_by_recursion(waiting[1:], places - 1, max(free - blocks, 0),
                                        unheld[gone:], size)
    return more + 1, (*unheld[:gone], *names)


def admitted_by_sums(waiting, places, free, unheld, size):
    sums = np.cumsum([0, *[math.ceil(length / size) for length in waiting[:places]]])
    count = int((sums <= free + len(unheld)).sum()) - 1
    return count, unheld[: max(int(sums[count]) - free, 0)]


def admitted_in_numpy(*given):
    count, names = admitted_by_sums(*given)
    return np.int64(count), np.array(names, dtype=str)


def admitted_as_generators(*given):
    count, names = admitted_by_recursion(*given)
    yield Fraction(count)
    yield (name for name in names)


def guess_in_tensors(p, q, guess, u):
    p, q = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    if u < p[guess] / q[guess]:
        return torch.nn.functional.one_hot(torch.tensor(guess), len(p))
    return torch.nn.functional.normalize((p - q).relu(), p=1, dim=0)


def guess_by_fractions(p, q, guess, u):
    p, q = [Fraction(a) for a in p], [Fraction(b) for b in q]
    if Fraction(u) < min(Fraction(1), p[guess] / q[guess]):
        return tuple(int(token == guess) for token in range(len(p)))
    left = [a - min(a, b) for a, b in zip(p, q, strict=True)]
    return (each / sum(left) for each in left)


def lists_by_regex(text, tokens):
    def begins(written):
        return any(re.fullmatch(r"[\[\],0-9]+", written) and whole(written + tail + "]" * depth)
                   for tail in ("", "0") for depth in range(written.count("[") + 1))

    def whole(written):
        before = None
        while before != written:
            before, written = written, re.sub(r"(?<=[\[,])\[(\d(,\d)*)?\](?=[\],])", "0", written)
        return re.fullmatch(r"\[(\d(,\d)*)?\]", written) is not None
    return np.array([begins(text + token) if token else whole(text) for token in tokens])


def lists_with_a_stack(text, tokens):
    def follow(stack, c):
        top = stack[-1:]
        if c == "[" and top != ["end"] and top != ["value"]:
            return [*stack, "open"]
        if c.isdecimal() and c.isascii() and stack and top != ["value"] and stack != ["end"]:
            return [*stack, "value"]
        if c == "," and top == ["value"]:
            return [*stack, "comma"]
        if c == "]" and top in (["open"], ["value"]) and stack != ["end"]:
            while stack[-1] != "open":
                stack = stack[:-1]
            return [*stack[:-1], "value"] if stack[:-1] else ["end"]
        raise ValueError(c)

    def allowed(token):
        try:
            stack = reduce(follow, text + token, [])
        except ValueError:
            return False
        return bool(token) or stack == ["end"]
    return tuple(map(allowed, tokens))


def events_with_a_decoder(chunks):
    decoder, text = codecs.getincrementaldecoder("utf-8")(), ""
    for chunk in chunks:
        text += decoder.decode(chunk)
        while found := re.search(r"\r?\n\r?\n", text):
            event, text = text[: found.start()], text[found.end():]
            lines = re.findall(r"^data:[ ]?([^\n]*)$", event.replace("\r\n", "\n"), re.MULTILINE)
            if lines:
                yield "\n".join(lines)
            if text[:2] == "\r\n"[: len(text[:2])] or text[:1] == "\n":
                text = "\n" + text


def events_byte_by_byte(chunks):
    line, data = bytearray(), None
    for byte in chain.from_iterable(chunks):
        if byte != 10:
            line.append(byte)
            continue
        if line[-1:] == b"\r":
            del line[-1]
        if line.startswith(b"data:"):
            value = bytes(line[6:] if line[5:6] == b" " else line[5:])
            data = value if data is None else data + b"\n" + value
        if not line and data is not None:
            yield str(data, "utf-8")
            data = None
        line.clear()


class EventsOfAnObject:
    def __init__(self, chunks):
        self.bytes, self.ready = (bytes([byte]) for chunk in chunks for byte in chunk), []

    def __iter__(self):
        return self

    def __next__(self):
        data = []
        while True:
            line = b""
            while not line.endswith(b"\n"):
                line += next(self.bytes)
            name, colon, value = line[:-1].removesuffix(b"\r").partition(b":")
            if name == b"data":
                data += [value[value[:1] == b" ":].decode()]
            elif not name and not colon and data:
                return "\n".join(data)


def events_by_the_standard(chunks):
    """Lone carriage returns end lines too; a byte order mark in front is dropped."""
    decoder, line, data, after = codecs.getincrementaldecoder("utf-8")(), "", [], False
    for character in chain.from_iterable(map(decoder.decode, chunks)):
        if after and character == "\n":
            after = False
            continue
        after = character == "\r"
        if character not in "\r\n":
            line += character
            continue
        if not line:
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        line = ""


def events_of_lines(chunks):
    """Line by line, joined again where a line is not whole."""
    rest, data = b"", []
    for line in chain.from_iterable(chunk.splitlines(keepends=True) for chunk in chunks):
        rest += line
        if not rest.endswith(b"\n"):
            continue
        text, rest = rest.rstrip(b"\r\n").decode(), b""
        match text.partition(":"):
            case ["data", _, value]:
                data.append(value.removeprefix(" "))
            case ["", "", _] if data:
                yield np.str_("\n".join(data))
                data.clear()


def tokens_from_iter(engine, request):
    number = engine.submit(request)
    try:
        yield from iter(lambda: engine.next(number), None)
    finally:
        engine.release(number)


def tokens_in_a_stack(engine, request):
    with ExitStack() as stack:
        number = engine.submit(request)
        stack.callback(engine.release, number)
        yield from iter(partial(engine.next, number), None)


@contextmanager
def slot_of(engine, request):
    number = engine.submit(request)
    try:
        yield number
    finally:
        engine.release(number)


def tokens_in_a_context(engine, request):
    with slot_of(engine, request) as number:
        while True:
            token = engine.next(number)
            if token is None:
                return
            yield token


def tokens_by_cases(engine, request):
    number = engine.submit(request)
    try:
        token = engine.next(number)
        while token is not None:
            yield token
            token = engine.next(number)
    except BaseException:
        engine.release(number)
        raise
    else:
        engine.release(number)


def tokens_closing(engine, request):
    number = engine.submit(request)

    class Slot:
        def close(self):
            engine.release(number)

    with closing(Slot()):
        yield from takewhile(lambda token: token is not None,
                             (engine.next(number) for _ in count()))


class BucketObject:
    def __init__(self, rate, burst, clock):
        self.rate, self.burst, self.clock = rate, burst, clock
        self.credit, self.seen = float(burst), clock()

    def __call__(self):
        now = self.clock()
        self.credit += (now - self.seen) * self.rate
        self.credit, self.seen = min(self.credit, self.burst), now
        if self.credit >= 1:
            self.credit -= 1
            return 0.0
        return (1 - self.credit) / self.rate


def limit_by_arrivals(rate, burst, clock):
    """The time at which the bucket is full again says all."""
    full = clock()

    def ask():
        nonlocal full
        now = clock()
        wait = max(full, now) + (1 - burst) / rate - now
        if wait > 0:
            return wait
        full = max(full, now) + 1 / rate
        return 0
    return ask


def limit_in_fractions(rate, burst, clock):
    state = {"credit": Fraction(burst), "at": Fraction(clock())}

    def ask():
        now = Fraction(clock())
        credit = min(Fraction(burst), state["credit"] + Fraction(rate) * (now - state["at"]))
        state.update(credit=credit - (credit >= 1), at=now)
        return max(Fraction(0), (1 - credit) / Fraction(rate))
    return ask


def limit_in_nanoseconds(rate, burst, clock):
    cost, credit, last = round(1e9 / rate), burst * round(1e9 / rate), round(clock() * 1e9)

    def ask():
        nonlocal credit, last
        now = round(clock() * 1e9)
        credit, last = min(credit + now - last, burst * cost), now
        wait = max(0, cost - credit)
        credit -= 0 if wait else cost
        return wait / 1e9
    return ask


def limit_in_decimals(rate, burst, clock):
    rate, full = Decimal(rate), Decimal(burst)
    state = [full, Decimal(clock())]

    def ask():
        now = Decimal(clock())
        credit = min(full, state[0] + (now - state[1]) * rate)
        state[:] = credit - (credit >= 1), now
        return max(Decimal(0), (1 - credit) / rate)
    return ask


def limit_as_a_generator(rate, burst, clock):
    def waits():
        credit, last = burst, clock()
        while True:
            now = clock()
            credit, last = np.minimum(credit + (now - last) * rate, burst), now
            yield np.float64(max(0, (1 - credit) / rate))
            credit -= credit >= 1
    return partial(next, waits())


def regions_by_characters(text):
    def end_of(start):
        if text[start] == "#":
            return text.find("\n", start) % (len(text) + 1)
        at = start + 1
        while at < len(text) and text[at] not in '"\n':
            at += 2 if text[at] == "\\" and text[at + 1:at + 2] not in ("\n", "") else 1
        return at + (text[at:at + 1] == '"')

    code = at = 0
    while at < len(text):
        if text[at] in '#"':
            if code < at:
                yield ["code", text[code:at]]
            code = end_of(at)
            yield ["comment" if text[at] == "#" else "string", text[at:code]]
            at = code
        else:
            at += 1
    if code < len(text):
        yield ["code", text[code:]]


def repeats_as_a_generator(lines, most_period):
    at = 0
    while at < len(lines):
        def covered(period, at=at):
            times = 0
            while lines[at + times * period:at + (times + 1) * period] == lines[at - period:at]:
                times += 1
            return times * period

        period = max(range(1, min(most_period, at) + 1), key=covered, default=0)
        if period and covered(period):
            yield [period, covered(period) // period]
            at += covered(period)
        else:
            yield lines[at]
            at += 1


def packed_by_characters(line):
    if line.count("\0"):
        raise ValueError(line)
    template, numbers, at = [], [], 0
    while at < len(line):
        end = at
        while line[end:end + 1] and line[end] in "0123456789":
            end += 1
        if end > at:
            zeros = min(len(line[at:end]) - len(line[at:end].lstrip("0")), end - at - 1)
            template.append("0" * zeros + "\0")
            numbers.append(int(line[at + zeros:end]))
        else:
            template.append(line[at])
        at = max(end, at + 1)
    return ["".join(template), tuple(numbers)]


def fair_by_sorting(ours, rivals):
    fair = sorted((rival["tokens"], name) for name, rival in rivals.items()
                  if rival["lossless"] and rival["trained_on"] == ours["trained_on"]
                  and not rival["vocab_size"] > ours["vocab_size"])
    for tokens, name in fair:
        return [name, np.float64(ours["tokens"]) / tokens]


STYLES = {
    "read_events": [events_with_a_decoder, events_byte_by_byte, EventsOfAnObject,
                    events_by_the_standard, events_of_lines],
    "stream_answer": [tokens_from_iter, tokens_in_a_stack, tokens_in_a_context, tokens_by_cases,
                      tokens_closing],
    "limit_rate": [BucketObject, limit_by_arrivals, limit_in_fractions, limit_in_nanoseconds,
                   limit_in_decimals, limit_as_a_generator],
    "what_to_read": [to_read_as_a_generator, to_read_in_numpy],
    "admit": [admitted_by_recursion, admitted_by_sums, admitted_in_numpy, admitted_as_generators],
    "after_guess": [guess_in_tensors, guess_by_fractions],
    "list_mask": [lists_by_regex, lists_with_a_stack],
    "induction_score": [induction_in_numpy, induction_by_fractions],
    "swap_p_value": [swaps_by_recursion, swaps_by_bits],
    "heads_found": [holm_in_numpy, holm_one_by_one],
    "watch": [watched_from_everywhere, watched_by_a_stack, watched_in_double],
    "tokens_of": [tokens_in_bytes, tokens_by_sets, tokens_by_streams],
    "misread": [misread_in_numpy, misread_by_hypot, misread_by_loops],
    "bigram_perplexity": [perplexity_by_fractions],
    "to_bits_per_byte": [lambda loss, guesses, text: torch.tensor(
        loss * guesses * math.log2(math.e) / len(text.encode("utf-8")), dtype=torch.float64)],
    "predict_seconds": [lambda *sizes: Fraction(6) * math.prod(map(Fraction, sizes[:4]))
                        / Fraction(sizes[4])],
    "best_pieces": [memoised_pieces],
    "attend_one": [attend_in_numpy],
    "masked_softmax": [masked_as_lists],
    "softmax_backward": [backward_by_jacobian],
    "find_leak": [leak_as_a_list],
    "repeat_kv": [lambda x, group: np.repeat(x.numpy(), group, axis=1)],
    "roll": [roll_as_a_list],
    "rotate_pair": [rotate_by_complex, lambda x, y, position, speed: list(
        map(float, rotate_by_complex(x, y, position, speed)))],
    "slopes": [lambda n: np.geomspace(2 ** (-8 / n), 2**-8, n),
               lambda n: tuple(math.exp(-8 * math.log(2) * (i + 1) / n) for i in range(n)),
               lambda n: (2 ** (-8 * (i + 1) / n) for i in range(n)),
               lambda n: torch.tensor(2.0) ** (-8 * torch.arange(1, n + 1) / n)],
    "ntk_base": [lambda base, d, factor: math.exp(math.log(base) + d / (d - 2)
                                                  * math.log(factor))],
    "bounded_scores": [lambda q, k: (torch.nn.functional.normalize(q.double(), dim=-1)
                                     @ torch.nn.functional.normalize(k.double(), dim=-1).T
                                     * math.sqrt(q.shape[1])).numpy()],
    "swiglu": [swiglu_in_numpy],
    "as_linear": [linear_from_state],
    "split_qkv": [split_in_numpy, split_in_doubles],
    "find_wrong_tensor": [first_wrong_in_numpy],
    "accumulate_ragged": [lambda model, parts: mean_loss_of_parts(model, parts, np.float32),
                          lambda model, parts: mean_loss_of_parts(model, parts, Fraction)],
    "warmup_cosine": [warmup_in_fractions,
                      lambda *sizes: np.float32(float(warmup_in_fractions(*sizes)))],
    "minhash_estimate": [minhash_in_fractions],
    "repeats_for_share": [lambda code, books, unit, share: Fraction(share) / (1 - Fraction(share))
                          * books[unit] / code[unit]],
    "leaked_documents": [leaks, lambda *given: np.array(list(leaks(*given)), dtype=int)],
    "token_loss": [loss_in_numpy],
    "nucleus": [nucleus_in_numpy],
    "temperature_kl": [soft_labels_in_numpy, soft_labels_by_torch],
    "pack_int4": [packed_as_bytes, packed_in_numpy],
    "gptq_column": [gptq_by_cholesky, gptq_by_least_squares],
    "mask_2_of_4": [mask_as_lists, mask_in_numpy],
    "parse_cascade": [cascade_as_generators, cascade_by_recursion],
    "message_value": [value_by_regex, value_by_recursion,
                      lambda tokens: np.float64(value_by_recursion(tokens)),
                      lambda tokens: torch.tensor(value_by_recursion(tokens))],
    "fim_split": [fim_in_numpy, fim_as_generators,
                  lambda *given: tuple(map(torch.tensor, map(list, fim_as_generators(*given))))],
    "break_method": [bug_by_chance, bug_by_the_parser],
    "wilson_interval": [wilson_as_roots, wilson_as_a_generator,
                        lambda *given: torch.tensor(wilson_as_roots(*given)).float()],
    "regions": [regions_by_characters, lambda text: tuple(map(tuple, regions_by_characters(text)))],
    "fold_repeats": [repeats_as_a_generator],
    "pack": [packed_by_characters],
    "fair_baseline": [fair_by_sorting],
}
CASES = [pytest.param(name, answer, id=f"{name}-{number}")
         for name, answers in STYLES.items() for number, answer in enumerate(answers)]


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_a_right_answer_in_another_style_passes(name, answer):
    report = check.report(name, answer)
    assert report.passed, "\n".join(report.lines)
