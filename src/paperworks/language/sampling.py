"""Hot path 2: sampling responses.

All samples of a prompt share one prefill (prompts are packed, not padded); keys and values live in one preallocated cache
with query heads grouped over their key heads instead of repeated; rows that are finished leave the batch. The draws of a
row depend on the seed, its prompt's index and its sample's index alone, not on what else is in the batch. Warping
(temperature, top-k, top-p, repetition penalty) is transformers' own. The log-probabilities returned are the policy's own
(at its own temperature, 1 as a rule; nothing cut off) and equal those that `logprobs` gives the same tokens.

Encoder-decoder models, architectures without the packed path, and prompts beyond a sliding window go through
transformers' `generate`, with the same draws.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.generation.logits_process import (
    LogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from paperworks.core.errors import DataError, ModelError, OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language import logprobs
from paperworks.language.data.schemas import Text
from paperworks.language.key_value_cache import KeyValueCache
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
    token_logps: tuple[float, ...] = ()  # what `logp` is the sum of


@dataclass(frozen=True)
class Samples:
    """The responses drawn for one prompt."""

    prompt: Text
    samples: tuple[Sample, ...]

    @property
    def texts(self) -> list[str]:
        return [sample.text for sample in self.samples]


@dataclass(frozen=True)
class Mixture:
    """Draw from the normalised pi(y_t)^(1-share) other(y_t)^share, token by token (arXiv 2312.00886, 2403.08635)."""

    other: Policy
    share: float

    def check(self, policy: Policy) -> None:
        """Raises OptionError for a share outside [0, 1] or another vocabulary, ModelError where it cannot be drawn."""
        if not 0 <= self.share <= 1:
            raise OptionError(f"mixture: share={self.share}: expected a number in [0, 1]")
        if self.other.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise OptionError(f"mixture: {policy.name} and {self.other.name} have different vocabularies")
        if {policy.method, self.other.method} != {"packed"}:
            raise ModelError(f"mixture: {policy.name} is not decoded by the packed path ({policy.method_note()})")


OnToken = Callable[[int, int, str], None]  # prompt index, sample index, text so far
OnPrompt = Callable[[int, Samples], None]  # prompt index, its responses


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
    on_prompt: OnPrompt | None = None,
    prompt_ids: Sequence[Sequence[int]] | None = None,
    mixture: Mixture | None = None,
) -> list[Samples]:
    """Draw `n` responses for every prompt, in the prompts' order. `batch_rows` bounds the rows decoded at once.

    `prompt_ids` are used in place of the prompts' own tokens (a prompt with the beginning of its answer, say). With a
    `mixture` the tokens come from a blend with another policy; the log-probabilities stay those of `policy`.
    `on_prompt` is called as soon as all responses to a prompt are there (short prompts come first), `on_token` at every
    token. A response ends at the end token, a stop string, `max_new_tokens` or the end of the model's context.
    Raises OptionError for options out of range and DataError for a prompt that leaves no room for a response.
    """
    options = SamplingOptions(max_new_tokens, temperature, top_k, top_p, repetition_penalty, tuple(stop))
    for name, value in (("n", n), ("batch_rows", batch_rows)):
        if value < 1:
            raise OptionError(f"option {name}={value}: expected at least 1")
    encoded = (
        [policy.encode_prompt(prompt) for prompt in prompts] if prompt_ids is None else list(map(list, prompt_ids))
    )
    for i, ids in enumerate(encoded):
        check_room(policy, ids, f"prompt {i + 1}")
    if mixture is not None:
        mixture.check(policy)
    drawn: list[Samples | None] = [None] * len(prompts)
    with torch.no_grad(), policy.acting():
        for draw, chosen in _batches(policy, [len(ids) for ids in encoded], max_new_tokens, max(1, batch_rows // n)):
            rows: list[list[Sample]] = [[] for _ in chosen]
            for first in range(0, n, batch_rows):
                numbers = range(first, min(first + batch_rows, n))
                labels = [(i, j) for i in chosen for j in numbers]
                responses = _Responses(policy, labels, options, on_token)
                if mixture is not None:
                    draw = functools.partial(_decode, mixture=mixture)
                draw(policy, [encoded[i] for i in chosen], len(numbers), options, responses, seed)
                for at, found in enumerate(responses.collect()):
                    rows[at // len(numbers)].append(found)
            for i, samples in zip(chosen, rows, strict=True):
                drawn[i] = done = Samples(prompts[i], tuple(samples))
                if on_prompt is not None:
                    on_prompt(i, done)
    return cast(list[Samples], drawn)


def check_room(policy: Policy, prompt: Sequence[int], name: str) -> None:
    """Raises DataError, which calls the prompt `name`, when its tokens leave no room for a response."""
    limit, size = policy.context_length, len(prompt)
    if size > limit if policy.is_encoder_decoder else size >= limit:
        raise DataError(
            f"{name} has {size} tokens; the context of the model is {limit}, which leaves no room for a response: shorten it"
        )


def _batches(policy: Policy, lengths: Sequence[int], max_new_tokens: int, size: int) -> Iterator[tuple[Any, list[int]]]:
    """Prompts of similar length to decode together, and how.

    A prompt whose response may meet the end of the context is decoded only with prompts of its own length: else the
    longest prompt in a batch would say how long the others' responses may become.
    """
    window = getattr(policy.base.config, "sliding_window", None)

    def kind(i: int) -> tuple[Any, int]:
        whole = lengths[i] + max_new_tokens
        packed = policy.method == "packed" and (window is None or whole <= window)
        meets_the_end = not policy.is_encoder_decoder and whole > policy.context_length
        return (_decode if packed else _generate), lengths[i] if meets_the_end else 0

    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) == size or kind(batch[0]) != kind(i)):
            yield kind(batch[0])[0], batch
            batch = []
        batch.append(i)
    if batch:
        yield kind(batch[0])[0], batch


class _Responses:
    """The rows under way, each with a label (prompt index, sample index): what each has drawn, and which are finished."""

    def __init__(
        self, policy: Policy, labels: Sequence[tuple[int, int]], options: SamplingOptions, on_token: OnToken | None
    ) -> None:
        self._policy, self._labels, self._options, self._on_token = policy, labels, options, on_token
        self._end_tokens = torch.tensor(end_tokens(policy), device=policy.device)

    def begin(self, steps: int, seed: int) -> None:
        """Make room for `steps` tokens a row, and draw the uniform number that decides each."""
        rows, device = len(self._labels), self._policy.device
        self.uniforms = torch.stack(
            [torch.rand(steps, generator=torch_generator(seed, "sample", i, j)) for i, j in self._labels]
        ).to(device)
        self._tokens = torch.full((rows, steps), -1, device=device)
        self._logps = torch.zeros(rows, steps, device=device)
        self._finished = torch.zeros(rows, dtype=torch.bool, device=device)

    def take(self, step: int, rows: Tensor, picked: Tensor, logp: Tensor) -> Tensor:
        """Write down one more token of each of these rows; returns which of them end with it."""
        self._tokens[rows, step], self._logps[rows, step] = picked, logp
        ended = torch.isin(picked, self._end_tokens)
        if self._options.stop or self._on_token is not None:
            for at, row in enumerate(rows.tolist()):
                text, stopped = self._text(self._tokens[row, : step + 1])
                ended[at] |= stopped
                if self._on_token is not None:
                    prompt, number = self._labels[row]
                    self._on_token(prompt, number, text)
        self._finished[rows[ended]] = True
        return ended

    def collect(self) -> list[Sample]:
        """The responses, row by row."""
        tokens, logps, finished = self._tokens.cpu(), self._logps.cpu(), self._finished.tolist()
        samples = []
        for row, found in enumerate(tokens):
            ids = found[found >= 0]
            of_tokens = logps[row, : len(ids)]
            logp = float(of_tokens.double().sum())
            samples.append(
                Sample(self._text(ids)[0], tuple(ids.tolist()), logp, finished[row], tuple(of_tokens.tolist()))
            )
        return samples

    def _text(self, ids: Tensor) -> tuple[str, bool]:
        """Text of a response before the first stop string, and whether there is one."""
        text = self._policy.decode(ids.tolist())
        at = min((at for at in map(text.find, self._options.stop) if at >= 0), default=None)
        return text[:at], at is not None


# --------------------------------------------------------------------------------------------------------- packed decode


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


class _Decoding:
    """One model's view of the rows under way: what it has read, and the logits of each row's next token."""

    def __init__(self, policy: Policy, prompts: Sequence[list[int]], n: int, steps: int) -> None:
        self._policy = policy
        base, device, lengths = policy.base, policy.device, [len(prompt) for prompt in prompts]
        self._cache = KeyValueCache(lengths, n, steps, device)
        self._position = torch.tensor(lengths, device=device).repeat_interleave(n)
        self._head = cast(Any, base.get_output_embeddings())
        predictors = torch.tensor(lengths, device=device).cumsum(0) - 1
        layout = logprobs.Layout(
            input_ids=torch.tensor([[token for prompt in prompts for token in prompt]], device=device),
            position_ids=torch.tensor([[p for length in lengths for p in range(length)]], device=device),
            blocks=tuple(logprobs.Block(1, length, None) for length in lengths),
            predictors=predictors,
            targets=torch.zeros_like(predictors),  # what comes next is yet to be drawn
            response=torch.arange(len(prompts), device=device),
            counts=torch.ones_like(predictors),
        )
        with policy.acting():
            hidden = logprobs.packed_hidden(base, layout, self._cache)
        self._hidden = hidden[layout.predictors].repeat_interleave(n, 0)

    def logits(self) -> Tensor:
        """[rows, vocabulary]"""
        return cast(Tensor, self._head(self._hidden)).float()

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, before the next `read`."""
        self._cache.keep(rows)
        self._position = self._position[rows]

    def read(self, picked: Tensor) -> None:
        """Take in one more token a row."""
        self._cache.begin_step()
        with self._policy.acting():
            output = self._policy.base.get_decoder()(
                input_ids=picked[:, None],
                position_ids=self._position[:, None],
                attention_mask=torch.zeros(1, 1, 1, 1, device=picked.device),
                use_cache=False,
                decode_state=self._cache,
            )
        self._cache.slot += 1
        self._position = self._position + 1
        self._hidden = output.last_hidden_state[:, 0]


def _decode(
    policy: Policy,
    prompts: Sequence[list[int]],
    n: int,
    options: SamplingOptions,
    responses: _Responses,
    seed: int,
    mixture: Mixture | None = None,
) -> None:
    device = policy.device
    rows = len(prompts) * n
    steps = min(options.max_new_tokens, policy.context_length - max(map(len, prompts)))
    responses.begin(steps, seed)
    processors = _processors(options)
    history = _padded_history(prompts, n, device) if options.repetition_penalty != 1.0 else None
    models = [_Decoding(each, prompts, n, steps) for each in ([policy] if mixture is None else [policy, mixture.other])]

    active = torch.arange(rows, device=device)  # the rows that the models still carry
    alive = torch.ones(rows, dtype=torch.bool, device=device)  # over `active`: those that go on
    for step in range(steps):
        logits = models[0].logits()
        uniform = responses.uniforms[active, step]
        if mixture is None:
            picked, logp = _pick(logits, history, processors, options, uniform, policy.temperature)
        else:
            blend = (1 - mixture.share) * logits.log_softmax(-1) + mixture.share * models[1].logits().log_softmax(-1)
            picked, _ = _pick(blend, history, processors, options, uniform)
            logp = (logits / policy.temperature).log_softmax(-1).gather(1, picked[:, None]).squeeze(1)
        going_on = alive.nonzero().squeeze(1)
        ended = responses.take(step, active[going_on], picked[going_on], logp[going_on])
        alive[going_on[ended]] = False
        if step + 1 == steps or not bool(alive.any()):
            break
        if int(alive.sum()) <= 0.75 * len(alive):  # copying the cache pays when a quarter of the rows is done
            keep = alive.nonzero().squeeze(1)
            for model in models:
                model.keep(keep)
            active, picked, alive = active[keep], picked[keep], alive[keep]
            history = history[keep] if history is not None else None
        if history is not None:
            history = torch.cat([history, picked[:, None]], 1)
        for model in models:
            model.read(picked)


def _pick(
    logits: Tensor,
    history: Tensor | None,
    processors: LogitsProcessorList,
    options: SamplingOptions,
    uniform: Tensor,
    own_temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability under the policy itself; `logits` is [rows, vocabulary]."""
    normaliser = logits.logsumexp(-1)
    warped = logits
    if processors:
        warped = processors(cast(Any, history), logits)
    if options.temperature == 0.0:
        picked = warped.argmax(-1)
    else:
        # inverse of the cumulative distribution: one uniform number a row, whatever else is in the batch
        total = normaliser if warped is logits else warped.logsumexp(-1)
        cumulative = (warped - total[:, None]).exp_().cumsum(-1)
        threshold = uniform.clamp(max=1 - 1e-6)[:, None] * cumulative[:, -1:]
        picked = torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
    if own_temperature != 1:
        logits = logits / own_temperature
        normaliser = logits.logsumexp(-1)
    return picked, logits.gather(1, picked[:, None]).squeeze(1) - normaliser


def _padded_history(prompts: Sequence[list[int]], n: int, device: torch.device) -> Tensor:
    """Prompt tokens of every row, for the repetition penalty; padded with a row's own token, which changes nothing."""
    longest = max(map(len, prompts))
    return torch.tensor(
        [[prompt[0]] * (longest - len(prompt)) + prompt for prompt in prompts], device=device
    ).repeat_interleave(n, 0)


def end_tokens(policy: Policy) -> list[int]:
    """The tokens that end a response: the tokenizer's and those of the model's generation configuration."""
    configured = getattr(policy.base.generation_config, "eos_token_id", None)
    return sorted(
        {policy.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    )


# ------------------------------------------------------------------------------------------------- transformers' `generate`


def _generate(
    policy: Policy, prompts: Sequence[list[int]], n: int, options: SamplingOptions, responses: _Responses, seed: int
) -> None:
    """The same through transformers' own `generate`, which is made to take the tokens that we draw."""
    device, longest = policy.device, max(map(len, prompts))
    ids = torch.full((len(prompts), longest), cast(int, policy.tokenizer.pad_token_id), device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        where = slice(0, len(prompt)) if policy.is_encoder_decoder else slice(longest - len(prompt), longest)
        ids[row, where] = torch.tensor(prompt, device=device)
        mask[row, where] = 1
    steps = min(options.max_new_tokens, policy.context_length - (0 if policy.is_encoder_decoder else longest))
    responses.begin(steps, seed)
    history = None if policy.is_encoder_decoder else _padded_history(prompts, n, device)
    picks = _Picks(options, responses, history, policy.temperature)
    with _plain_generation(policy):
        cast(Any, policy.model).generate(
            input_ids=ids.repeat_interleave(n, 0),
            attention_mask=mask.repeat_interleave(n, 0),
            max_new_tokens=steps,
            do_sample=False,
            logits_processor=LogitsProcessorList([picks]),
            stopping_criteria=StoppingCriteriaList([_AllPicked(picks)]),
        )


class _Picks(LogitsProcessor):
    """Draws the next tokens itself and leaves `generate`, which then takes the likeliest, no other choice."""

    def __init__(
        self, options: SamplingOptions, responses: _Responses, prompts: Tensor | None, own_temperature: float
    ) -> None:
        self._options, self._responses, self._prompts = options, responses, prompts
        self._own_temperature = own_temperature
        self._processors = _processors(options)
        self._step = 0
        self.alive = torch.ones(len(responses.uniforms), dtype=torch.bool, device=responses.uniforms.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        steps = self._responses.uniforms.shape[1]
        uniform = self._responses.uniforms[:, min(self._step, steps - 1)]
        history: Tensor = input_ids
        if self._prompts is not None:  # without the padding, which a repetition penalty would count as used
            history = torch.cat([self._prompts, input_ids[:, self._prompts.shape[1] :]], 1)
        picked, logp = _pick(scores, history, self._processors, self._options, uniform, self._own_temperature)
        if self._step < steps:  # on a GPU `generate` looks late whether it may stop
            rows = self.alive.nonzero().squeeze(1)
            self.alive[rows[self._responses.take(self._step, rows, picked[rows], logp[rows])]] = False
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, picked[:, None], 0.0)


class _AllPicked(StoppingCriteria):
    """Stops the rows that `_Picks` has ended."""

    def __init__(self, picks: _Picks) -> None:
        self._picks = picks

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        return ~self._picks.alive


@contextlib.contextmanager
def _plain_generation(policy: Policy) -> Iterator[None]:
    """Without the decoding habits a model's folder may bring (beams, forced tokens, n-gram bans): the policy as it is."""
    base: PreTrainedModel = policy.base
    own = base.generation_config
    base.generation_config = GenerationConfig(
        bos_token_id=policy.tokenizer.bos_token_id,
        eos_token_id=end_tokens(policy),
        pad_token_id=policy.tokenizer.pad_token_id,
        decoder_start_token_id=getattr(base.config, "decoder_start_token_id", None),
    )
    try:
        yield
    finally:
        base.generation_config = own
