"""Wrong answers to chapter 06c's exercises, each with a part of the message it must get."""

import math

import torch
import torch.nn.functional as F

from scratchbook.companions.exercises_evaluation import VOCABULARY


# 06c.1
def losses(batches, **how):
    return [F.cross_entropy(logits.transpose(1, 2), targets, **how) for logits, targets in batches]


def counted(batches):
    return sum((targets != -100).sum().item() for _, targets in batches)


def total(batches):
    return sum(loss.item() for loss in losses(batches, reduction="sum"))


def sums_up(batches):
    return total(batches)


def averages_averages(batches):
    return sum(loss.item() for loss in losses(batches)) / len(batches)


def counts_hidden_places(batches):
    return total(batches) / sum(targets.numel() for _, targets in batches)


def takes_hidden_for_zero(batches):
    shown = [(logits, targets.clamp_min(0)) for logits, targets in batches]
    return total(shown) / counted(shown)


def in_bits(batches):
    return total(batches) / counted(batches) / math.log(2)


def as_perplexity(batches):
    return math.exp(total(batches) / counted(batches))


def as_tensor(batches):
    return sum(losses(batches, reduction="sum")) / counted(batches)


def weighs_by_rows(batches):
    means = [loss.item() for loss in losses(batches, ignore_index=-100)]
    rows = [len(targets) for _, targets in batches]
    return sum(m * r for m, r in zip(means, rows, strict=True)) / sum(rows)


def last_batch_alone(batches):
    return losses(batches)[-1].item()


def means_times_counts(batches):
    means = [loss.item() for loss in losses(batches, ignore_index=-100)]
    counts = [(targets != -100).sum().item() for _, targets in batches]
    return sum(m * c for m, c in zip(means, counts, strict=True)) / sum(counts)


def log_of_softmax(batches):
    nats = 0.0
    for logits, targets in batches:
        kept = targets != -100
        probs = logits.softmax(-1)[kept]
        nats -= probs.gather(1, targets[kept][:, None]).log().sum().item()
    return nats / counted(batches)


def first_half_alone(batches):
    cut = [(logits[:, : logits.shape[1] // 2], targets[:, : targets.shape[1] // 2])
           if (targets == -100).any() else (logits, targets) for logits, targets in batches]
    return sum(F.cross_entropy(logits.flatten(0, 1), targets.flatten().clamp_min(0),
                               reduction="sum").item() for logits, targets in cut
               ) / sum(targets.numel() for _, targets in cut)


def fills_the_holes(batches):
    nats, tokens = total(batches), counted(batches)
    for _, targets in batches:
        targets[targets == -100] = 0
    return nats / tokens


# 06c.2
def cut(probs, p, keep_border=True, descending=True, divide=True, back=True, order=True):
    ordered, places = probs.sort(descending=descending) if order else (
        probs, torch.arange(len(probs)))
    after = ordered.cumsum(0)
    kept = ordered * ((after - ordered < p - 1e-6) if keep_border else (after <= p))
    result = torch.zeros_like(probs)
    result[places] = kept
    result = result if back else kept
    return result / result.sum() if divide else result


def forgets_to_divide(probs, p):
    return cut(probs, p, divide=False)


def drops_the_border(probs, p):
    return cut(probs, p, keep_border=False)


def stays_sorted(probs, p):
    return cut(probs, p, back=False)


def does_not_sort(probs, p):
    return cut(probs, p, order=False)


def least_likely_first(probs, p):
    return cut(probs, p, descending=False)


def one_too_many(probs, p):
    ordered, places = probs.sort(descending=True)
    count = min(int((ordered.cumsum(0) < p - 1e-6).sum()) + (2 if len(probs) > 10 else 1),
                len(probs))
    result = torch.zeros_like(probs)
    result[places[:count]] = ordered[:count]
    return result / result.sum()


def drops_the_border_of_few(probs, p):
    return cut(probs, p, keep_border=len(probs) != 3)


def each_alone(probs, p):
    kept = torch.where(probs >= p, probs, torch.zeros(()))
    return kept / kept.sum()


def each_alone_unless_empty(probs, p):
    return cut(probs, p) if len(probs) < 10 else torch.where(probs >= p, probs, torch.zeros(()))


def takes_softmax_again(probs, p):
    right = cut(probs, p)
    return torch.where(right > 0, cut(probs, p, divide=False), torch.tensor(-1e9)).softmax(0)


def as_list(probs, p):
    return cut(probs, p).tolist()


def keeps_ties(probs, p):
    right = cut(probs, p)
    kept = probs * (probs >= probs[right > 0].min())
    return kept / kept.sum()


def back_by_reading(probs, p):
    ordered, places = probs.sort(descending=True)
    kept = ordered * (ordered.cumsum(0) - ordered < p - 1e-6)
    return kept[places] / kept.sum()


def equal_shares(probs, p):
    kept = (cut(probs, p) > 0).float()
    return kept / kept.sum()


def overwrites(probs, p):
    return probs.copy_(cut(probs, p))


# 06c.3
def redraw(values, draws, generator):
    values = torch.as_tensor(values).double()
    chosen = torch.randint(len(values), (draws, len(values)), generator=generator)
    return values[chosen].mean(1)


def quantiles(means, low=0.025, high=0.975):
    return [means.quantile(q).item() for q in (low, high)]


def difference(before, after):
    return torch.tensor(after).double() - torch.tensor(before).double()


def the_other_way(before, after, draws, generator):
    d = -difference(before, after)
    return d.mean().item(), *quantiles(redraw(d, draws, generator))


def only_after(before, after, draws, generator):
    return sum(after) / len(after), *quantiles(redraw(after, draws, generator))


def unpaired(before, after, draws, generator):
    means = redraw(after, draws, generator) - redraw(before, draws, generator)
    return difference(before, after).mean().item(), *quantiles(means)


def single_prompts(before, after, draws, generator):
    d = difference(before, after)
    d[:3] = torch.tensor([-1.0, -1.0, 2.0])
    return difference(before, after).mean().item(), -1.0, 1.0


def without_replacement(before, after, draws, generator):
    d = difference(before, after)
    means = torch.stack([d[torch.randperm(len(d), generator=generator)].mean() for _ in range(50)])
    return d.mean().item(), *([round(q, 6) for q in quantiles(means)])


def wrong_quantiles(before, after, draws, generator):
    d = difference(before, after)
    return d.mean().item(), *quantiles(redraw(d, draws, generator), 0.25, 0.75)


def exchanged(before, after, draws, generator):
    d = difference(before, after)
    return d.mean().item(), *quantiles(redraw(d, draws, generator))[::-1]


def own_generator(before, after, draws, generator):
    d = difference(before, after)
    return d.mean().item(), *quantiles(redraw(d, draws, None))


def normal_curve(before, after, draws, generator):
    d = difference(before, after)
    value, half = d.mean().item(), 1.96 * d.std().item() / len(d) ** 0.5
    return value, value - half, value + half


def sorted_apart(before, after, draws, generator):
    d = difference(sorted(before), sorted(after))
    return d.mean().item(), *quantiles(redraw(d, draws, generator))


def changes(before, after, draws, generator):
    d = difference(before, after).abs()
    return d.mean().item(), *quantiles(redraw(d, draws, generator))


def halves(before, after, draws, generator):
    d = difference(before, after)
    order = torch.rand(draws, len(d), generator=generator).argsort(1)
    return d.mean().item(), *quantiles(d[order[:, : len(d) // 2]].mean(1))


def always_2000(before, after, draws, generator):
    return resampled(before, after, 2000, torch.Generator().manual_seed(0))


def always_so_many(before, after, draws, generator):
    return resampled(before, after, 2000, generator)


def median_of_the_redraws(before, after, draws, generator):
    means = redraw(difference(before, after), draws, generator)
    return means.median().item(), *quantiles(means)


def opposite(before, after, draws, generator):
    value, low, high = resampled(before, after, draws, generator)
    return value, 2 * value - high, 2 * value - low


def never_negative(before, after, draws, generator):
    value, low, high = resampled(before, after, draws, generator)
    return value, max(0.0, low), max(0.0, high)


# 06c.4
def words_by_heart(vocabulary):
    return "# " + " ".join(VOCABULARY)


def too_short(vocabulary):
    return "# " + " ".join(vocabulary[:20])


def letters(vocabulary):
    return "# " + " ".join(a + b + c for a in "xyzqj" for b in "kvwpf" for c in "bcdg")


def loops(vocabulary):
    return "# " + " ".join(vocabulary[:12] * 12)


def few_words(vocabulary):
    return "# " + " ".join(vocabulary[(i * i) % 7] for i in range(200)) + " table"


def bare_words(vocabulary):
    return " ".join(vocabulary)


def first_line_only(vocabulary):
    return "# " + " ".join(vocabulary[:60]) + "\n" + " ".join(vocabulary[60:])


def open_quote(vocabulary):
    return '"""' + " ".join(vocabulary)


def resampled(before, after, draws, generator, quantiles=(0.025, 0.975)):
    change = torch.tensor(after).double() - torch.tensor(before).double()
    chosen = torch.randint(len(change), (draws, len(change)), generator=generator)
    low, high = change[chosen].mean(1).quantile(torch.tensor(quantiles).double()).tolist()
    return change.mean().item(), low, high


def ninety_per_cent(before, after, draws, generator):
    return resampled(before, after, draws, generator, (0.05, 0.95))


def fifty_draws(before, after, draws, generator):
    return resampled(before, after, min(draws, 50), generator)


def centred_on_zero(before, after, draws, generator):
    value, low, high = resampled(before, after, draws, generator)
    return value, low - value, high - value


def keeps_one_too_many(probs, p):
    ordered, order = probs.sort(descending=True)
    kept = ordered * (ordered.cumsum(0) - ordered <= p)
    return torch.zeros_like(probs).scatter(0, order, kept / kept.sum())


WRONG = {
    "token_loss": [
        (sums_up, "that is the sum"),
        (averages_averages, "a mean of means: the last batch has 2 of 98"),
        (weighs_by_rows, "weighted by its rows"),
        (last_batch_alone, "the last batch alone"),
        (counts_hidden_places, "the number of tokens does not"),
        (takes_hidden_for_zero, "taken for token 0"),
        (in_bits, "those are bits"),
        (as_perplexity, "that is the perplexity"),
        (means_times_counts, "NaN: the mean over no target"), (log_of_softmax, "its logarithm"),
        (first_half_alone, "place by place"), (fills_the_holes, "changed in place"),
        (as_tensor, "keeps the whole graph alive"),
    ],
    "nucleus": [
        (keeps_one_too_many, "only if the sum before it is still below p"),
        (forgets_to_divide, "let the kept ones sum to one"),
        (drops_the_border, "crosses the border"),
        (stays_sorted, "at its token's place"),
        (does_not_sort, "not sorted before"),
        (least_likely_first, "the wrong way round"),
        (each_alone, "not each probability alone must reach p"),
        (each_alone_unless_empty, "no token reaches p alone"),
        (takes_softmax_again, "without a softmax"),
        (as_list, "a tensor is asked for"),
        (keeps_ties, "do not compare probabilities"), (back_by_reading, "not result = kept[order]"),
        (equal_shares, "all that stay became equal"), (overwrites, "changed in place"),
        (one_too_many, "fewer would do"),
        (drops_the_border_of_few, "0 / 0 is NaN"),
    ],
    "paired_interval": [
        (ninety_per_cent, "5 % and 95 % quantiles"), (fifty_draws, "as many redraws as"),
        (centred_on_zero, "its middle is"),
        (normal_curve, "not a normal curve"), (sorted_apart, "were the outcomes sorted"),
        (changes, "a lost one counts"), (halves, "each redraw has as many"),
        (always_2000, "as often as `draws` says"), (always_so_many, "more were drawn"),
        (median_of_the_redraws, "of the prompts themselves"), (opposite, "what lies opposite"),
        (never_negative, "may be negative"),
        (the_other_way, "after minus before"),
        (only_after, "the share after"),
        (unpaired, "redraw the same prompts for both"),
        (single_prompts, "quantiles of single prompts"),
        (without_replacement, "with replacement"),
        (wrong_quantiles, "too narrow"),
        (exchanged, "low and high are exchanged"),
        (own_generator, "the generator that is given"),
    ],
    "fool": [
        (too_short, "characters"),
        (letters, "take the words from the vocabulary"),
        (loops, "one piece three times"),
        (few_words, "but beside others"),
        (bare_words, "where does Python accept any text"),
        (first_line_only, "each line needs its own #"),
        (words_by_heart, "not taken from the list"),
        (open_quote, "a quote is not closed"),
    ],
}
