"""Reward models: a transformer with one scalar output that scores a response to a prompt.

The backbone is an encoder (BERT, RoBERTa, DistilBERT …), which reads prompt and response as a pair of texts, or a decoder
(Llama, GPT-2, Qwen …), whose score is read at the end token; there a prompt is computed once for all its responses.
The folders are ordinary Hugging Face ones: `AutoModelForSequenceClassification` loads them and gives the same scores.
Text is tokenised anew by the reward model's own tokenizer, so that it may judge any policy's text.

An ensemble is one model too. Its members have top layers of their own on a shared lower part, through which every text goes
once for all; or heads alone on one trunk (arXiv 2406.01013).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from paperworks.core.errors import ModelError, OptionError, first_line
from paperworks.core.seeding import derive_seed
from paperworks.language import logprobs, models
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Graded, Text
from paperworks.language.items import batches_by_tokens
from paperworks.language.logprobs import TokenLogps, Tree
from paperworks.language.rewards.member_blocks import (
    MemberTop,
    copies,
    default_layers,
    freeze_below,
    is_deep,
    save_tops,
)
from paperworks.language.rewards.model_files import EnsembleFacts, grow_head, read, several_outputs
from paperworks.language.rewards.model_forward import (
    last_linear,
    packed,
    packed_agrees,
    padded,
    position_offset,
    read_states,
)
from paperworks.language.text_model import LoraOptions, TextModel, _response_text


class Encoded(NamedTuple):
    """A prompt and a response as token ids that fit the model."""

    prompt: list[int]
    response: list[int]
    is_cut: bool  # the prompt at its front, or the response at its end


class RewardModel(TextModel):
    """A sequence classifier with one output, or one a member of an ensemble, and its tokenizer.

    `fresh_modules` names the parts that were drawn at random on loading: the head of a model that had none.
    """

    kind = "reward model"

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, name: str = "reward model") -> None:
        super().__init__(model, tokenizer, name=name)
        config = self.base.config
        facts = self.ensemble
        if config.num_labels != (1 if facts is None or facts.layers else facts.members):
            raise ModelError(several_outputs(name, int(config.num_labels or 0)))
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
        config.problem_type = "regression"

    @property
    def fresh_modules(self) -> tuple[str, ...]:
        """Names of the modules whose weights were drawn at random on loading; empty for a trained reward model."""
        return tuple(getattr(self.base, "_fresh_modules", ()))

    @property
    def ensemble(self) -> EnsembleFacts | None:
        """What is known of its members; None for a single reward model."""
        return cast("EnsembleFacts | None", getattr(self.base, "_ensemble", None))

    @property
    def members(self) -> int:
        """How many rewards it gives a response: 1, or one a member."""
        return 1 if self.ensemble is None else self.ensemble.members

    @property
    def own_layers(self) -> int:
        """How many top layers each member has for itself; 0 for a single model, and for heads on one trunk."""
        return 0 if self.ensemble is None else self.ensemble.layers

    @property
    def tops(self) -> tuple[MemberTop, ...]:
        """The own layers of all members but the first, whose own are the model's; empty where there are none."""
        return tuple(getattr(self.base, "_member_tops", ()))

    def make_ensemble(
        self, members: int, *, layers: int | None = None, freeze_shared: bool | None = None, seed: int = 0
    ) -> None:
        """Make a fresh model an ensemble: every member with a head, and `layers` top layers, of its own.

        layers None: a sixth of them, or heads alone (0) where the model cannot be divided or has adapters. With
        `freeze_shared` (None: in models of 12 layers or more) what is below takes no gradient and the members are
        independent; else it trains on all members' losses together, which leaves them less to disagree about. For a model
        with as many members already only the freezing is done. Raises ModelError for another number of members, for a
        trained head (its copies would agree), and for layers where they are impossible.
        """
        if self.ensemble is not None and (members, layers or self.own_layers) != (self.members, self.own_layers):
            raise ModelError(
                f"{self.name} has {self.members} members with {self.own_layers} layers of their own; train it with "
                f"--ensemble {self.members} --member-layers {self.own_layers}"
            )
        if members == 1:
            return
        if self.ensemble is None and not self.fresh_modules:
            raise ModelError(
                f"{self.name} has a trained head already, whose copies would all agree; start --ensemble {members} from a "
                "language model, or train single models with other seeds and name each by --reward"
            )
        if self.ensemble is None:
            if layers is None:
                layers = 0 if self.has_adapters else default_layers(self.base)
            if layers and self.has_adapters:
                raise ModelError(f"member_layers={layers}: members share adapters; give --member-layers 0 or no --lora")
            if layers:
                made = copies(self.base, layers, last_linear(self.base), members, seed)
                cast(Any, self.base)._member_tops = tuple(made)
            else:
                grow_head(self.base, members, seed)
            self.know_members(EnsembleFacts(members, layers))
        if self.own_layers and (is_deep(self.base) if freeze_shared is None else freeze_shared):
            freeze_below(self.base, self.own_layers, last_linear(self.base))

    def know_members(self, facts: EnsembleFacts) -> None:
        """Keep what is known of the members; it is saved with the model."""
        cast(Any, self.base)._ensemble = facts

    # ------------------------------------------------------------------------------------------------------- loading

    @classmethod
    def load(cls, name: str | Path, **options: Any) -> Self:
        """As `TextModel.load`, with the members' own layers on the model's device."""
        loaded = super().load(name, **options)
        for top in loaded.tops:
            top.to(loaded.device)
        return loaded

    @classmethod
    def _read(cls, name: str, dtype: torch.dtype, seed: int) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        return read(name, dtype, seed)

    @property
    def _task_type(self) -> str:
        return "SEQ_CLS"

    def with_lora(self, options: LoraOptions, *, seed: int = 0) -> RewardModel:
        """The same with fresh adapters; they and the head train, and so does whatever else was drawn at random."""
        from peft import LoraConfig, PeftModel, get_peft_model

        if isinstance(self.model, PeftModel):
            raise ModelError(f"{self.name} carries adapters already; merge them first or go on training without --lora")
        whole = self._trained_whole()
        config = LoraConfig(
            r=options.rank,
            lora_alpha=cast(int, options.alpha),
            lora_dropout=options.dropout,
            target_modules=options.targets if options.targets == "all-linear" else options.targets.split(","),
            modules_to_save=whole,
            exclude_modules=rf"(.*\.)?({'|'.join(map(re.escape, whole))})(\..*)?",
            task_type=self._task_type,
        )
        try:
            with torch.random.fork_rng(), models.quiet_peft():
                torch.manual_seed(derive_seed(seed, "adapters"))
                model = get_peft_model(cast(Any, self.model), config)
        except ValueError as error:
            raise ModelError(f"LoRA cannot be put on {self.name}: {first_line(error)}") from error
        return RewardModel(model, self.tokenizer, name=self.name)

    def _trained_whole(self) -> list[str]:
        """The modules that train whole beside adapters: the head, and what else was drawn at random (a pooler)."""
        head = "score" if self.is_decoder else "classifier"
        return sorted({head, *(name for name in self.fresh_modules if name.partition(".")[0] != head)})

    def _prepare_tokenizer(self) -> None:
        tokenizer = self.tokenizer
        if self.is_decoder and tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {self.name} has no end-of-sequence token, so responses cannot end")
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None:
                raise ModelError(f"the tokenizer of {self.name} has no padding token; set its pad_token")
            tokenizer.pad_token = tokenizer.eos_token

    # ---------------------------------------------------------------------------------------------------------- facts

    @property
    def is_decoder(self) -> bool:
        """Whether the backbone reads from left to right and is scored at its last token."""
        return hasattr(self.base, "score")  # what transformers calls the head of every such class

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and response together."""
        limit = super().context_length
        offset = position_offset(self.base)
        if offset:
            limit = min(limit, int(self.base.config.max_position_embeddings) - offset)
        return min(limit, int(min(self.tokenizer.model_max_length, 1 << 20)))

    @functools.cached_property
    def method(self) -> logprobs.Method:
        """`packed` where the self-check shows that it gives the plain forward pass's scores, else `padded`."""
        return "packed" if self._packed_check[0] else "padded"

    @functools.cached_property
    def _packed_check(self) -> tuple[bool, str]:
        if not self.is_decoder:
            return False, "an encoder"
        return packed_agrees(self)

    def method_note(self) -> str:
        """One line for users on how this model is scored where that is not as usual; else empty."""
        if not self.is_decoder:
            return ""
        notes = []
        if not self._packed_check[0]:
            notes.append(f"scores by the plain padded path ({self._packed_check[1]})")
        if self.base.config.pad_token_id == self.tokenizer.eos_token_id:
            notes.append("its tokenizer pads with the end token, so scores are read at the token before the end")
        return f"{self.name}: {'; '.join(notes)}" if notes else ""

    # --------------------------------------------------------------------------------------------------------- tokens

    def encode_prompt(self, prompt: Text) -> list[int]:
        """Token ids of a prompt: a string as the tokenizer has it, messages through the chat template.

        An encoder without a template reads messages as plain text, `role: content`. Raises ModelError for a decoder
        without one.
        """
        if self.is_decoder:
            if not isinstance(prompt, str) and not self.tokenizer.chat_template:
                raise ModelError(
                    f"the reward model {self.name} has no chat template and the prompt is a list of messages; put a "
                    "chat_template.jinja into its folder (when training: --chat-template FILE), or use plain strings"
                )
            return super().encode_prompt(prompt)
        if not isinstance(prompt, str):
            prompt = self._chat(prompt, generate=True) if self.tokenizer.chat_template else plain_text(prompt)
        return list(self.tokenizer(prompt, truncation=False, verbose=False).input_ids)

    def encode_responses(self, responses: Sequence[Text | Graded]) -> list[list[int]]:
        """Token ids of many responses, each with the end token; for an encoder as the second text of a pair."""
        if self.is_decoder:
            return super().encode_responses(responses)
        texts = [_response_text(response) for response in responses]
        if not texts:
            return []
        alone = list(self.tokenizer("").input_ids)
        pairs = self.tokenizer([""] * len(texts), texts, truncation=False, verbose=False).input_ids
        if any(list(pair[: len(alone)]) != alone for pair in pairs):
            raise ModelError(
                f"{self.name}: its tokenizer does not put a second text behind the first; use another model"
            )
        return [list(pair[len(alone) :]) for pair in pairs]

    def encode(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[Encoded]:
        """Token ids that fit the model: of what is too long, the prompt loses its front first, down to a quarter."""
        known: dict[str, list[int]] = {}
        for prompt in prompts:
            key = json.dumps(prompt)
            if key not in known:
                known[key] = self.encode_prompt(prompt)
        limit = self.context_length
        out = []
        for prompt, ids in zip(prompts, self.encode_responses(responses), strict=True):
            of_prompt = known[json.dumps(prompt)]
            kept = min(len(of_prompt), max(1, limit - len(ids), limit // 4))
            room = limit - kept
            out.append(Encoded(of_prompt[-kept:], ids[:room], kept < len(of_prompt) or room < len(ids)))
        return out

    # --------------------------------------------------------------------------------------------------------- scores

    def scores(self, trees: Sequence[Tree], *, keep_hidden: bool = False) -> TokenLogps:
        """The score of every response, with gradient: `values` has one a response, in tree order, float32.

        Of an ensemble it has the members' scores in turn, responses one after another, as a response's tokens stand.
        Raises OptionError with `keep_hidden`: an objective that reads hidden states trains policies.
        """
        if keep_hidden:
            raise OptionError(
                "hidden states of responses are not kept for reward models; this objective needs a policy"
            )
        counts = torch.tensor([float(len(r)) for tree in trees for r in tree.responses], device=self.device)
        values = self._values(trees)
        response = torch.arange(len(values), device=self.device).repeat_interleave(self.members)
        return TokenLogps(values.reshape(-1), response, counts)

    def _values(self, trees: Sequence[Tree]) -> Float[Tensor, "responses ..."]:
        window = getattr(self.base.config, "sliding_window", None) or 1 << 40
        longest = max(len(tree.prompt) + max(map(len, tree.responses)) for tree in trees)
        if self.method == "padded" or longest >= window or not all(map(self.is_read_inside, trees)):
            return padded(self, trees)
        return packed(self, trees)

    def is_read_inside(self, tree: Tree) -> bool:
        """Whether every response is scored at one of its own tokens or at the prompt's last one."""
        pad = self.base.config.pad_token_id
        return tree.prompt[-1] != pad or all(any(token != pad for token in response) for response in tree.responses)

    def score_texts(
        self,
        prompts: Sequence[Text],
        responses: Sequence[Text],
        *,
        most_tokens: int = 4096,
        on_progress: Callable[[float], None] | None = None,
    ) -> list[float]:
        """The score of each response to the prompt beside it, without gradient, in batches of like length.

        Of an ensemble the mean of its members' raw scores; `member_scores` has each. Texts beyond the model's context are
        cut (see `encode`). `on_progress` gets the share done.
        """
        encoded = self.encode(prompts, responses)
        return self.score_encoded(encoded, most_tokens=most_tokens, on_progress=on_progress)

    def score_encoded(
        self,
        encoded: Sequence[Encoded],
        *,
        most_tokens: int = 4096,
        on_progress: Callable[[float], None] | None = None,
    ) -> list[float]:
        """The same for texts that are token ids already."""
        return self.member_scores(encoded, most_tokens=most_tokens, on_progress=on_progress).mean(1).tolist()

    def member_scores(
        self,
        encoded: Sequence[Encoded],
        *,
        most_tokens: int = 4096,
        on_progress: Callable[[float], None] | None = None,
    ) -> Float[Tensor, "responses members"]:
        """Every member's raw score of each response (one column where there is one member), float64 on the CPU."""
        together: dict[object, list[int]] = {}  # responses to one prompt share its computation
        for at, one in enumerate(encoded):
            together.setdefault(tuple(one.prompt) if self.is_decoder else at, []).append(at)
        groups = [places[i : i + 16] for places in together.values() for i in range(0, len(places), 16)]
        trees = [Tree(encoded[group[0]].prompt, [encoded[at].response for at in group]) for group in groups]
        out, done = torch.zeros(len(encoded), self.members, dtype=torch.float64), 0
        with torch.no_grad(), self.acting():
            for batch in batches_by_tokens(trees, most_tokens):
                values = self._values([trees[i] for i in batch])
                places = [at for i in batch for at in groups[i]]
                out[places] = values.reshape(len(places), -1).double().cpu()
                done += len(places)
                if on_progress is not None:
                    on_progress(done / len(encoded))
        return out

    def write(self, folder: Path) -> None:
        """Write model and tokenizer into an existing folder, and what is known of an ensemble's members."""
        super().write(folder)
        if self.ensemble is not None:
            self.ensemble.write(folder)
        if self.tops:
            save_tops(folder, list(self.tops))

    # ---------------------------------------------------------------------------------------------------------- scale

    @torch.no_grad()
    def start_on_scale(self, mean: float, scale: float, trees: Sequence[Tree]) -> None:
        """Put the outputs on the scale of data with this mean and deviation, before training: r becomes about mean + scale·r.

        A head with a bias adds the mean to it. One without gets the weights whose outputs on `trees` are nearest to the
        mean (ridge regression); all stays one linear map, so that the saved model needs nothing beside it.
        """
        head = last_linear(self.base)
        head.weight.mul_(scale)
        if head.bias is not None:
            head.bias.mul_(scale).add_(mean)
            return
        states = torch.cat(list(self._head_inputs(trees))).double()
        gram = states.T @ states / len(states)
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        solution = torch.linalg.solve(gram, states.mean(0)) * mean
        head.weight.add_(solution.to(head.weight)[None])

    def _head_inputs(self, trees: Sequence[Tree]) -> Iterator[Float[Tensor, "responses width"]]:
        """What a decoder's head reads for each response."""
        is_packed = self.method == "packed"
        seen: list[Tensor] = []
        hook = last_linear(self.base).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        try:
            with self.acting():
                for tree in trees:
                    if is_packed and self.is_read_inside(tree):
                        yield read_states(self, [tree])
                        continue
                    for response in tree.responses:  # alone, so that its last position is not padding
                        padded(self, [Tree(tree.prompt, [response])])
                        yield seen.pop()[:, -1]
        finally:
            hook.remove()
