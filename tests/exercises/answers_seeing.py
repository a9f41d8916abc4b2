"""Foreseen wrong answers of chapter 06d: (answer, a piece of its message)."""

from __future__ import annotations

import ast
import copy
from bisect import bisect_left, bisect_right

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook


# 06d.1
def watching(model, kind, x, hook=None, always=True, remove=True, only_children=False):
    seen, handles = [], []
    keep = hook or (lambda seen: lambda module, args, output: seen.append(output.detach().clone()))
    for module in (model.children() if only_children else model.modules()):
        if isinstance(module, kind):
            handles.append(module.register_forward_hook(keep(seen)))
    try:
        result = model(x)
    except Exception:
        if not always:
            raise
        for handle in handles:
            handle.remove()
        raise
    for handle in handles if remove else ():
        handle.remove()
    return result, seen


def replacing(seen):
    def hook(module, args, output):
        seen.append(output.detach().clone())
        return output * 2
    return hook


def by_reference(seen):
    def hook(module, args, output):
        seen.append(output.detach())
    return hook


def with_gradient(seen):
    def hook(module, args, output):
        seen.append(output.clone())
    return hook


def of_inputs(seen):
    def hook(module, args, output):
        seen.append(args[0].detach().clone() if len(seen) < 2 else output.detach().clone())
    return hook


def once_each(model, kind, x):
    seen = {}
    handles = [m.register_forward_hook(
        lambda module, args, output: seen.update({id(module): output.detach().clone()}))
        for m in model.modules() if isinstance(m, kind)]
    try:
        return model(x), list(seen.values())
    finally:
        for handle in handles:
            handle.remove()


def swallowing(model, kind, x):
    try:
        return watching(model, kind, x)
    except KeyError:
        return None, []


def without_gradient(model, kind, x):
    with torch.no_grad():
        return watching(model, kind, x)


def on(modules, model, x):
    """The right way, on the modules that it is given."""
    seen = []
    handles = [module.register_forward_hook(
        lambda module, args, output: seen.append(output.detach().clone())) for module in modules]
    try:
        return model(x), seen
    finally:
        for handle in handles:
            handle.remove()


def of_kind(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def on_a_copy(model, kind, x):
    model = copy.deepcopy(model)
    return on(of_kind(model, kind), model, x)


def clearing(model, kind, x):
    seen = []
    for module in of_kind(model, kind):
        module.register_forward_hook(lambda module, args, output:
                                     seen.append(output.detach().clone()))
    try:
        return model(x), seen
    finally:
        for module in model.modules():
            module._forward_hooks.clear()


def on_all_modules(model, kind, x):
    seen = []
    register_module_forward_hook(
        lambda module, args, output: seen.append(output.detach().clone())
        if module in wanted else None)
    wanted = of_kind(model, kind)
    try:
        return model(x), seen
    finally:
        wanted = []


def in_place_of_forward(model, kind, x):
    seen = []
    for module in of_kind(model, kind):
        def forward(given, module=module):
            output = type(module).forward(module, given)
            seen.append(output.detach().clone())
            return output
        module.forward = forward
    return model(x), seen


def evaluating(model, kind, x):
    return on(of_kind(model, kind), model.eval(), x)


def in_order_of_modules(model, kind, x):
    seen, modules = [], of_kind(model, kind)
    handles = [module.register_forward_hook(
        lambda module, args, output, place=place: seen.append((place, output.detach().clone())))
        for place, module in enumerate(modules)]
    try:
        return model(x), [output for _, output in sorted(seen, key=lambda pair: pair[0])]
    finally:
        for handle in handles:
            handle.remove()


def training_afterwards(model, kind, x):
    found = on(of_kind(model, kind), model, x)
    model.train()
    return found


def kept_on_the_model(model, kind, x):
    answer, model.seen = on(of_kind(model, kind), model, x)
    return answer, model.seen


def changing_x(model, kind, x):
    found = on(of_kind(model, kind), model, x)
    x.data.add_(1)
    return found


def with_a_slope(model, kind, x):
    found = on(of_kind(model, kind), model, x)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return found


# 06d.2
def touching(spans, start, stop):
    return [i for i, (a, b) in enumerate(spans) if a < stop and b > start]


def place(source, node, bytes_=True):
    lines = source.splitlines(keepends=True)
    found = []
    for line, column in ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)):
        text = lines[line - 1]
        column = len(text.encode()[:column].decode()) if bytes_ else column
        found.append(len("".join(lines[: line - 1])) + column)
    return found


def in_characters(source, node, spans):
    return touching(spans, *place(source, node, bytes_=False))


def from_the_line(source, node, spans):
    return touching(spans, node.col_offset, node.end_col_offset)


def inside(source, node, spans):
    start, stop = place(source, node)
    return [i for i, (a, b) in enumerate(spans) if start <= a and b <= stop]


def meeting(source, node, spans):
    start, stop = place(source, node)
    return [i for i, (a, b) in enumerate(spans) if a <= stop and b >= start]


def the_first(source, node, spans):
    return touching(spans, place(source, node)[0], place(source, node)[0] + 1)


def one_line(source, node, spans):
    start = place(source, node)[0]
    text = ast.get_source_segment(source, node).splitlines()[0]
    return touching(spans, start, start + len(text))


def by_its_text(source, node, spans):
    text = ast.get_source_segment(source, node)
    return touching(spans, source.index(text), source.index(text) + len(text))


def with_lines(source, node, spans, lines, length):
    def offset(line, column):
        return (sum(map(length, lines[: line - 1]))
                + len(lines[line - 1].encode()[:column].decode()))
    return touching(spans, offset(node.lineno, node.col_offset),
                    offset(node.end_lineno, node.end_col_offset))


def half_in_bytes(source, node, spans):
    return touching(spans, place(source, node, bytes_=False)[0], place(source, node)[1])


def in_utf16(source, node, spans):
    def offset(line, column):
        lines = source.split("\n")
        within = lines[line - 1].encode()[:column].decode().encode("utf-16-le")
        return sum(len(each) + 1 for each in lines[: line - 1]) + len(within) // 2
    return touching(spans, offset(node.lineno, node.col_offset),
                    offset(node.end_lineno, node.end_col_offset))


def with_an_end_inside(source, node, spans):
    start, stop = offsets(source, node)
    return [i for i, (a, b) in enumerate(spans) if start <= a < stop or start < b <= stop]


def offsets(source, node):
    lines = [line + "\n" for line in source.split("\n")]
    return [sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())
            for line, column in ((node.lineno, node.col_offset),
                                 (node.end_lineno, node.end_col_offset))]


def the_end_in_characters(source, node, spans):
    start, stop = offsets(source, node)
    if node.end_lineno != node.lineno:
        lines = source.split("\n")
        stop = sum(len(line) + 1 for line in lines[: node.end_lineno - 1]) + node.end_col_offset
    return touching(spans, start, stop)


def emptying(source, node, spans):
    found = touching(spans, *offsets(source, node))
    spans.clear()
    return found


def from_the_last_that_begins(source, node, spans):
    start, stop = offsets(source, node)
    begins = [a for a, _ in spans]
    return range(bisect_right(begins, start) - 1, bisect_left(begins, stop))


# 06d.3
def piling_up(weights, values, output, kept=[]):  # noqa: B006, the mistake is this list
    kept += of(weights, weights * (values @ output.T).norm(dim=-1))
    return kept


def turned_where_it_fits(weights, values, output):
    output = output.T if output.shape[0] == output.shape[1] else output
    return of(weights, weights * (values @ output.T).norm(dim=-1))


def by_far(weights, values, output):
    brings = weights * (values @ output.T).norm(dim=-1)
    return [i for i, row in enumerate(brings) if row.max() > 2 * row[weights[i].argmax()]]


def by(weights, values, output, order):
    return of(weights, weights * (values @ output.T).norm(order, dim=-1))


def in_place(weights, values, output):
    top = weights.argmax(-1)
    return (weights.mul_((values @ output.T).norm(dim=-1)).argmax(-1) != top).nonzero()


def of(weights, brought):
    return (brought.argmax(-1) != weights.argmax(-1)).nonzero()[:, 0].tolist()


WRONG = {
    "watch": [
        (lambda model, kind, x: watching(model, kind, x)[1], "it returned a list"),
        (lambda model, kind, x: watching(model, kind, x)[::-1],
         "the first of the two is not the model's answer"),
        (lambda model, kind, x: watching(model, kind, x, replacing),
         "a hook that returns something puts it"),
        (lambda model, kind, x: watching(model, kind, x, remove=False), "hooks are still there"),
        (once_each, "append, do not assign"),
        (lambda model, kind, x: watching(model, nn.Module, x), "other kinds of modules"),
        (lambda model, kind, x: (model(x), []), "the list is empty"),
        (lambda model, kind, x: watching(model, kind, x, by_reference), "keep a copy (clone)"),
        (lambda model, kind, x: watching(model, kind, x, of_inputs), "these are the inputs"),
        (lambda model, kind, x: watching(model, kind, x, with_gradient), "detach it"),
        (without_gradient, "the answer has lost its gradient"),
        (swallowing, "it was swallowed"),
        (lambda model, kind, x: watching(model, kind, x, always=False), "in a `finally`"),
        (lambda model, kind, x: watching(model, kind, x, only_children=True),
         "modules() begins with it"),
        (lambda model, kind, x: on([m for m in of_kind(model, kind) if not [*m.children()]],
                                   model, x), "a module with modules inside"),
        (lambda model, kind, x: on([m for m in model.modules() if type(m) is kind], model, x),
         "isinstance tells"),
        (lambda model, kind, x: on([m for m in (model, *model.children())
                                    if isinstance(m, kind)], model, x), "children() goes one step"),
        (lambda model, kind, x: (model(x), watching(model, kind, x)[1]), "more than once"),
        (watching, "KeyboardInterrupt is no Exception"),
        (on_a_copy, "was a copy of the model run"),
        (clearing, "remove() your own handles alone"),
        (on_all_modules, "register_module_forward_hook is still there"),
        (in_place_of_forward, "`forward` was replaced"),
        (evaluating, "was in training mode"),
        (in_order_of_modules, "the calls came in another one"),
        (lambda model, kind, x: on([m for _, m in model.named_modules(remove_duplicate=False)
                                    if isinstance(m, kind)], model, x), "it got two hooks"),
        (training_afterwards, "was in eval mode"),
        (kept_on_the_model, "keep the list outside of the model"),
        (changing_x, "it writes into x"),
        (with_a_slope, "has a .grad that it had not"),
        (lambda model, kind, x: (model(x), (each for each in [])), "it is a generator"),
    ],
    "tokens_of": [
        (in_characters, "counts bytes of UTF-8"),
        (from_the_line, "counts from the start of its line"),
        (inside, "reaches over the node's edge"),
        (meeting, "only meet the node's edge"),
        (the_first, "the first of its tokens alone"),
        (one_line, "it ends too early"),
        (lambda source, node, spans: list(range(len(spans))), "you returned"),
        (half_in_bytes, "one end counts bytes"),
        (by_its_text, "stands in two places"),
        (lambda source, node, spans: with_lines(
            source, node, spans, source.splitlines(True), lambda line: len(line.encode())),
         "whole lines before it count as characters"),
        (lambda source, node, spans: with_lines(
            source, node, spans, source.splitlines(), lambda line: len(line) + 1),
         "a line can end in two characters"),
        (lambda source, node, spans: with_lines(source, node, spans, source.splitlines(True), len),
         "str.splitlines also cuts at a form feed"),
        (in_utf16, "it is two of UTF-16"),
        (with_an_end_inside, "reaches over both ends"),
        (lambda source, node, spans: touching(spans, offsets(source, node)[0],
                                              offsets(source, node)[1] - 1), "its last character"),
        (the_end_in_characters, "each character is a token here"),
        (emptying, "changes the list that it was given"),
        (from_the_last_that_begins, "both share it with the node"),
    ],
    "misread": [
        (lambda w, v, o: [i for i in range(len(w))
                          if i not in of(w, w * (v @ o.T).norm(dim=-1))], "read rightly"),
        (lambda w, v, o: list(range(len(w))), "query 0 sees itself alone"),
        (lambda w, v, o: [], "compare two argmax"),
        (lambda w, v, o: of(w, w * v.norm(dim=-1)), "behind the output matrix"),
        (lambda w, v, o: of(w, w * (v @ o.T).sum(-1)), "a sum of coordinates is no length"),
        (lambda w, v, o: of(w, w * (v @ o.T).norm(dim=-1)[:, None]), "compare two argmax"),
        (lambda w, v, o: of(w, w * (v @ o.T).norm(dim=-1).square()), "the length is squared"),
        (lambda w, v, o: by(w, v, o, 1), "not 3 + 4"),
        (lambda w, v, o: by(w, v, o, torch.inf), "has 5, not 4"),
        (lambda w, v, o: (w * (v @ o.T).norm(dim=-1)).argmax(-1) != w.argmax(-1), "yes or no"),
        (in_place, "writes into one of its arguments"),
        (piling_up, "is kept from one call to the next"),
        (turned_where_it_fits, "the output matrix is turned"),
        (by_far, "query 1 gets 2.55 from token 0 and 2.94 from token 1"),
        (lambda w, v, o: [i + 0.5 for i in of(w, w * (v @ o.T).norm(dim=-1))], "you returned [1.5"),
        (lambda w, v, o: [int(w[i].argmax()) for i in of(w, w * (v @ o.T).norm(dim=-1))][:1],
         "not those of their favourites"),
    ],
}
