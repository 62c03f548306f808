"""Hot path 2: sampling responses.

All samples of a prompt share one prefill (prompts are packed, not padded); keys and values live in one preallocated cache
with query heads grouped over their key heads instead of repeated; rows that are finished leave the batch. The draws of a
row depend on the seed, its prompt's index and its sample's index alone, not on what else is in the batch. Warping
(temperature, top-k, top-p, repetition penalty) is transformers' own. The log-probabilities returned are the policy's own
(temperature 1, nothing cut off) and equal those that `logprobs` gives the same tokens.

Encoder-decoder models and architectures without the packed path go through transformers' `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from paperworks.core.errors import DataError, OptionError
from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language import logprobs
from paperworks.language.data.schemas import Text
from paperworks.language.policy import Policy


@dataclass(frozen=True)
class SamplingOptions:
    """How responses are drawn."""

    max_new_tokens: int = field(default=128, metadata={"help": "most tokens of a response"})
    temperature: float = field(default=1.0, metadata={"help": "0 is greedy decoding"})
    top_k: int = field(default=0, metadata={"help": "keep the k likeliest tokens; 0 keeps all"})
    top_p: float = field(default=1.0, metadata={"help": "keep the likeliest tokens up to this probability mass"})
    repetition_penalty: float = field(default=1.0, metadata={"help": "above 1: tokens already used become less likely"})
    stop: tuple[str, ...] = field(default=(), metadata={"help": "strings that end a response (cut off from its text)"})

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (all) or more"),
            ("top_p", 0 < self.top_p <= 1, "a number in (0, 1]"),
            ("repetition_penalty", self.repetition_penalty > 0, "a positive number"),
            ("stop", all(self.stop), "non-empty strings"),
        ):
            if not holds:
                raise OptionError(f"option {name}={getattr(self, name)}: expected {expected}")


@dataclass(frozen=True)
class Sample:
    """One response: its text, its token ids (end token included where it came), and log pi(y|x)."""

    text: str
    ids: tuple[int, ...]
    logp: float
    finished: bool  # ended by the end token or a stop string rather than by max_new_tokens


@dataclass(frozen=True)
class Samples:
    """The responses drawn for one prompt."""

    prompt: Text
    samples: tuple[Sample, ...]

    @property
    def texts(self) -> list[str]:
        return [sample.text for sample in self.samples]


OnToken = Callable[[int, int, str], None]  # prompt index, sample index, text so far


def sample(
    policy: Policy,
    prompts: Sequence[Text],
    *,
    n: int = 1,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
    batch_rows: int = 64,
    on_token: OnToken | None = None,
) -> list[Samples]:
    """Draw `n` responses for every prompt, in the prompts' order. `batch_rows` bounds the rows decoded at once.

    Raises OptionError for options out of range and DataError for a prompt that leaves no room for a response.
    """
    options = SamplingOptions(max_new_tokens, temperature, top_k, top_p, repetition_penalty, tuple(stop))
    if n < 1:
        raise OptionError(f"option n={n}: expected at least 1")
    encoded = [policy.encode_prompt(prompt) for prompt in prompts]
    if not policy.is_encoder_decoder:
        for i, ids in enumerate(encoded):
            if len(ids) >= policy.context_length:
                raise DataError(
                    f"prompt {i + 1} has {len(ids)} tokens; the model's context is {policy.context_length}, "
                    "which leaves no room for a response: shorten it"
                )
    drawn: list[list[Sample]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    per_batch = max(1, batch_rows // n)
    draw = _decode if policy.method == "packed" else _generate
    with torch.no_grad(), policy.acting():
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            rows = draw(policy, chosen, [encoded[i] for i in chosen], n, options, seed, on_token)
            for i, samples in zip(chosen, rows, strict=True):
                drawn[i] = samples
    return [Samples(prompt, tuple(samples)) for prompt, samples in zip(prompts, drawn, strict=True)]


# --------------------------------------------------------------------------------------------------------- packed decode


class KeyValueCache:
    """Keys and values of all layers for `rows` rows. Prompts are right-aligned, so every row writes the same slot."""

    def __init__(self, prompt_lengths: Sequence[int], n: int, capacity: int, device: torch.device) -> None:
        self.longest = max(prompt_lengths)
        self.capacity = self.longest + capacity
        self.slot = self.longest  # where the next token's key goes
        lengths = torch.tensor(prompt_lengths, device=device)
        starts = lengths.cumsum(0) - lengths  # prompts lie one after another in the packed row
        aligned = torch.arange(self.longest, device=device)[None] - (self.longest - lengths)[:, None]
        self._packed_index = (starts[:, None] + aligned.clamp(min=0)).flatten()
        self.padding = (self.longest - lengths).repeat_interleave(n)
        self._n = n
        self._layers: dict[int, list[Tensor]] = {}
        self.mask: Tensor | None = None

    def remember(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Take a layer's keys and values [1, kv_heads, positions, dim] from the packed prefill."""
        entry = []
        for packed in (key, value):
            prompts = packed[0].index_select(1, self._packed_index).unflatten(1, (-1, self.longest)).transpose(0, 1)
            cache = packed.new_empty(prompts.shape[0] * self._n, prompts.shape[1], self.capacity, prompts.shape[3])
            cache[:, :, : self.longest] = prompts.repeat_interleave(self._n, 0)
            entry.append(cache)
        self._layers[layer] = entry

    def begin_step(self) -> None:
        """Prepare the mask that hides each row's left padding, shared by all layers."""
        if int(self.padding.max()) == 0:
            self.mask = None
        else:
            slots = torch.arange(self.slot + 1, device=self.padding.device)
            self.mask = (slots[None] >= self.padding[:, None])[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Write one new position a row and attend to all of the row's positions: [rows, 1, heads, dim]."""
        keys, values = self._layers[layer]
        keys[:, :, self.slot] = key[:, :, 0]
        values[:, :, self.slot] = value[:, :, 0]
        grouped = query.squeeze(2).unflatten(1, (keys.shape[1], -1))  # query heads of a key head take the query axis
        out = functional.scaled_dot_product_attention(
            grouped,
            keys[:, :, : self.slot + 1],
            values[:, :, : self.slot + 1],
            attn_mask=None if self.mask is None else self.mask.expand(-1, 1, grouped.shape[2], -1),
            scale=scaling,
        )
        return out.flatten(1, 2)[:, None]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        used = self.slot
        for entry in self._layers.values():
            for which, cache in enumerate(entry):
                kept = cache.new_empty(len(rows), *cache.shape[1:])
                kept[:, :, :used] = cache[:, :, :used].index_select(0, rows)
                entry[which] = kept
        self.padding = self.padding[rows]


def _processors(options: SamplingOptions) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.temperature not in (0.0, 1.0):
        processors.append(TemperatureLogitsWarper(options.temperature))
    if options.top_k and options.temperature:
        processors.append(TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0 and options.temperature:
        processors.append(TopPLogitsWarper(options.top_p))
    return processors


def _decode(
    policy: Policy,
    indices: Sequence[int],
    prompts: Sequence[list[int]],
    n: int,
    options: SamplingOptions,
    seed: int,
    on_token: OnToken | None,
) -> list[list[Sample]]:
    base, device = policy.base, policy.device
    steps = options.max_new_tokens
    room = min(policy.context_length - len(prompt) for prompt in prompts)
    steps = min(steps, room)
    rows = len(prompts) * n
    uniforms = torch.stack(
        [torch.rand(steps, generator=torch_generator(seed, "sample", i, j)) for i in indices for j in range(n)]
    ).to(device)
    processors = _processors(options)
    history = _padded_history(prompts, n, device) if options.repetition_penalty != 1.0 else None

    cache = KeyValueCache([len(prompt) for prompt in prompts], n, steps, device)
    blocks = tuple(logprobs.Block(1, len(prompt), None) for prompt in prompts)
    layout = logprobs.Layout(
        input_ids=torch.tensor([[token for prompt in prompts for token in prompt]], device=device),
        position_ids=torch.tensor([[p for prompt in prompts for p in range(len(prompt))]], device=device),
        blocks=blocks,
        predictors=torch.tensor([len(prompt) for prompt in prompts], device=device).cumsum(0) - 1,
        targets=torch.empty(0),
        response=torch.empty(0),
        counts=torch.empty(0),
    )
    hidden = logprobs.packed_hidden(base, layout, cache)[layout.predictors].repeat_interleave(n, 0)

    end_tokens = _end_tokens(policy)
    active = torch.arange(rows, device=device)
    alive = torch.ones(rows, dtype=torch.bool, device=device)  # over `active`
    position = torch.tensor([len(prompt) for prompt in prompts], device=device).repeat_interleave(n)
    tokens = torch.full((rows, steps), -1, device=device)
    logps = torch.zeros(rows, steps, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    head = cast(Any, base.get_output_embeddings())
    for step in range(steps):
        logits = head(hidden).float()
        picked, logp = _pick(logits, history, processors, options, uniforms[active, step])
        on_row = active[alive]
        tokens[on_row, step], logps[on_row, step] = picked[alive], logp[alive]
        ended = torch.isin(picked, end_tokens)
        if options.stop or on_token:
            ended |= _watch(policy, tokens[:, : step + 1], active, alive, options.stop, on_token, indices, n)
        finished[active[alive & ended]] = True
        alive &= ~ended
        if step + 1 == steps or not bool(alive.any()):
            break
        if int(alive.sum()) <= 0.75 * len(alive):  # copying the cache pays when a quarter of the rows is done
            keep = alive.nonzero().squeeze(1)
            cache.keep(keep)
            active, position, picked = active[keep], position[keep], picked[keep]
            history = history[keep] if history is not None else None
            alive = alive[keep]
        if history is not None:
            history = torch.cat([history, picked[:, None]], 1)
        cache.begin_step()
        output = base.get_decoder()(
            input_ids=picked[:, None],
            position_ids=position[:, None],
            attention_mask=torch.zeros(1, 1, 1, 1, device=device),
            use_cache=False,
            decode_state=cache,
        )
        cache.slot += 1
        position = position + 1
        hidden = output.last_hidden_state[:, 0]
    return _collect(policy, tokens.cpu(), logps.cpu(), finished.cpu(), len(prompts), n, options.stop)


def _pick(
    logits: Tensor, history: Tensor | None, processors: LogitsProcessorList, options: SamplingOptions, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability under the policy itself; `logits` is [rows, vocabulary]."""
    normaliser = logits.logsumexp(-1)
    warped = logits
    if processors:
        warped = cast(Tensor, processors(cast(Any, history), logits))
    if options.temperature == 0.0:
        picked = warped.argmax(-1)
    else:
        # inverse of the cumulative distribution: one uniform number a row, whatever else is in the batch
        cumulative = (warped - warped.amax(-1, keepdim=True)).exp_().cumsum(-1)
        threshold = uniform.clamp(max=1 - 1e-6)[:, None] * cumulative[:, -1:]
        picked = torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
    return picked, logits.gather(1, picked[:, None]).squeeze(1) - normaliser


def _padded_history(prompts: Sequence[list[int]], n: int, device: torch.device) -> Tensor:
    """Prompt tokens of every row, for the repetition penalty; padded with a row's own token, which changes nothing."""
    longest = max(map(len, prompts))
    return torch.tensor(
        [[prompt[0]] * (longest - len(prompt)) + prompt for prompt in prompts], device=device
    ).repeat_interleave(n, 0)


def _end_tokens(policy: Policy) -> Tensor:
    ends = {policy.tokenizer.eos_token_id}
    configured = getattr(policy.base.generation_config, "eos_token_id", None)
    ends.update(configured if isinstance(configured, list) else [] if configured is None else [configured])
    return torch.tensor(sorted(ends), device=policy.device)


def _watch(
    policy: Policy,
    tokens: Tensor,
    active: Tensor,
    alive: Tensor,
    stop: Sequence[str],
    on_token: OnToken | None,
    indices: Sequence[int],
    n: int,
) -> Tensor:
    """Decode the rows that go on: report them, and say which hold a stop string."""
    stopped = torch.zeros_like(alive)
    for i in alive.nonzero().squeeze(1).tolist():
        row = int(active[i])
        text = policy.decode(tokens[row].tolist())
        cut = _cut(text, stop)
        stopped[i] = cut != text
        if on_token is not None:
            on_token(indices[row // n], row % n, cut)
    return stopped


def _cut(text: str, stop: Sequence[str]) -> str:
    """`text` before the first stop string in it."""
    return text[: min((at for at in (text.find(word) for word in stop) if at >= 0), default=len(text))]


def _collect(
    policy: Policy, tokens: Tensor, logps: Tensor, finished: Tensor, prompts: int, n: int, stop: Sequence[str]
) -> list[list[Sample]]:
    samples = []
    for row in range(prompts * n):
        ids = [token for token in tokens[row].tolist() if token >= 0]
        text = _cut(policy.decode(ids), stop)
        samples.append(Sample(text, tuple(ids), float(logps[row, : len(ids)].sum()), bool(finished[row])))
    return [samples[i * n : (i + 1) * n] for i in range(prompts)]


# ------------------------------------------------------------------------------------------------- transformers' generate


def _generate(
    policy: Policy,
    indices: Sequence[int],
    prompts: Sequence[list[int]],
    n: int,
    options: SamplingOptions,
    seed: int,
    on_token: OnToken | None,
) -> list[list[Sample]]:
    """The same through transformers' own `generate`, scored afterwards by `logprobs`."""
    device, tokenizer = policy.device, policy.tokenizer
    longest = max(map(len, prompts))
    pad = cast(int, tokenizer.pad_token_id)
    ids = torch.full((len(prompts), longest), pad, device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        where = slice(0, len(prompt)) if policy.is_encoder_decoder else slice(longest - len(prompt), longest)
        ids[row, where] = torch.tensor(prompt, device=device)
        mask[row, where] = 1
    room = options.max_new_tokens if policy.is_encoder_decoder else policy.context_length - longest
    warping: dict[str, Any] = {"do_sample": False}
    if options.temperature:
        warping = {"do_sample": True, "temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    stopping = {"stop_strings": list(options.stop), "tokenizer": tokenizer} if options.stop else {}
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "sample", *indices))
        generated = cast(Any, policy.model).generate(
            input_ids=ids.repeat_interleave(n, 0),
            attention_mask=mask.repeat_interleave(n, 0),
            max_new_tokens=min(options.max_new_tokens, room),
            repetition_penalty=options.repetition_penalty,
            pad_token_id=pad,
            **warping,
            **stopping,
        )
    generated = generated[:, 1 if policy.is_encoder_decoder else longest :].tolist()
    end_tokens = set(_end_tokens(policy).tolist())
    responses = []
    for row in generated:
        end = next((t for t, token in enumerate(row) if token in end_tokens), None)
        kept = row if end is None else row[: end + 1]
        if end is None and options.stop:
            while kept and kept[-1] == pad:  # rows that met a stop string are padded up to the longest
                kept = kept[:-1]
        responses.append(kept)
    trees = [logprobs.Tree(prompt, responses[i * n : (i + 1) * n]) for i, prompt in enumerate(prompts)]
    logps = policy.token_logps(trees).sums().tolist()
    out: list[list[Sample]] = []
    for i in range(len(prompts)):
        out.append([])
        for j in range(n):
            row = responses[i * n + j]
            full = policy.decode(row)
            text = _cut(full, options.stop)
            out[-1].append(Sample(text, tuple(row), logps[i * n + j], row[-1] in end_tokens or text != full))
            if on_token is not None:
                on_token(indices[i], j, text)
    return out

