"""A transformers model with its tokenizer: what a policy and a reward model have in common.

Decides how text becomes tokens (plain strings as they are, chat messages through the model's own template, every response
ended by the model's end token), how adapters are put on, what acts, and how it is saved. Knows nothing of objectives or of
training.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from paperworks.core.errors import DataError, ModelError, OptionError, first_line
from paperworks.core.files import atomic_folder
from paperworks.core.seeding import derive_seed
from paperworks.language import logprobs, models, vocabulary
from paperworks.language.data.schemas import Graded, Text

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters (arXiv 2106.09685) trained in place of the full weights."""

    rank: int = field(default=16, metadata={"help": "rank of the update"})
    alpha: float = field(default=32.0, metadata={"help": "scale: the update is multiplied by alpha / rank"})
    dropout: float = field(default=0.0, metadata={"help": "dropout on the adapters' input"})
    targets: str = field(default="all-linear", metadata={"help": "module names, comma separated, or all-linear"})

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise OptionError(f"option rank={self.rank}: expected at least 1")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"option dropout={self.dropout}: expected [0, 1)")


class TextModel:
    """A model, its tokenizer and a name for messages. Subclasses say what the model computes from text."""

    kind: ClassVar[str] = "model"  # in messages

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, name: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self._adapters_off = False
        if self.has_adapters:
            from paperworks.language.lora_layers import add_in_place

            add_in_place(model)
        self._prepare_tokenizer()
        base = self.base
        softcaps = getattr(base.config, "attn_logit_softcapping", None) is not None  # ours does not
        if not self.is_encoder_decoder and getattr(base, "_supports_attention_backend", False) and not softcaps:
            with contextlib.suppress(ValueError):  # an architecture that checks names keeps its own attention
                base.set_attn_implementation(logprobs.ATTENTION)

    # ------------------------------------------------------------------------------------------------------- loading

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        lora: LoraOptions | None = None,
        precision: Precision = "float32",
        device: str = "auto",
        chat_template: str | None = None,
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> Self:
        """Load `tiny`, `smollm2-135m`, a local folder (a full model, a LoRA adapter, or a run folder) or a Hub id.

        `chat_template` is a Jinja template or the path of one, for tokenizers that bring none; `seed` fixes the random
        start of adapters and of heads that the model does not bring. Raises ModelError.
        """
        from paperworks.core.devices import pick_device

        model, tokenizer = cls._read(str(name), getattr(torch, precision), seed)
        if chat_template is not None:
            tokenizer.chat_template = template_of(chat_template)
        if gradient_checkpointing:
            cast(Any, model).activation_checkpointing_enable({"use_reentrant": False})
            if lora is not None:
                cast(Any, model).enable_input_require_grads()
        loaded = cls(model, tokenizer, name=str(name))
        if lora is not None:
            loaded = loaded.with_lora(lora, seed=seed)
        loaded.model.to(pick_device(device))
        return loaded

    @classmethod
    def _read(cls, name: str, dtype: torch.dtype, seed: int) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """The model and tokenizer of that name. Raises ModelError."""
        raise NotImplementedError

    @property
    def _task_type(self) -> str:
        """PEFT's name for what the model does."""
        raise NotImplementedError

    def with_lora(self, options: LoraOptions, *, seed: int = 0) -> Self:
        """The same with fresh adapters; only they train."""
        from peft import LoraConfig, PeftModel, get_peft_model

        if isinstance(self.model, PeftModel):
            raise ModelError(f"{self.name} carries adapters already; merge them first or go on training without --lora")
        targets = options.targets if options.targets == "all-linear" else options.targets.split(",")
        config = LoraConfig(
            r=options.rank,
            lora_alpha=cast(int, options.alpha),
            lora_dropout=options.dropout,
            target_modules=targets,
            task_type=self._task_type,
        )
        try:
            with torch.random.fork_rng(), models.quiet_peft():
                torch.manual_seed(derive_seed(seed, "adapters"))
                model = get_peft_model(cast(PreTrainedModel, self.model), config)
        except ValueError as error:
            raise ModelError(f"LoRA cannot be put on {self.name}: {first_line(error)}") from error
        return type(self)(model, self.tokenizer, name=self.name)

    def _prepare_tokenizer(self) -> None:
        tokenizer = self.tokenizer
        if tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {self.name} has no end-of-sequence token, so responses cannot end")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    # ---------------------------------------------------------------------------------------------------------- facts

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, without a PEFT wrapper around it."""
        return cast(PreTrainedModel, vocabulary.unwrapped(self.model))

    @property
    def has_adapters(self) -> bool:
        return hasattr(self.model, "disable_adapter")

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.base.config.is_encoder_decoder)

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and response together."""
        limit = getattr(self.base.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        return int(min(limit, 1 << 20))

    def method_note(self) -> str:
        """One line for users on which path scores this model; empty on the fast path."""
        return ""

    def content_hash(self) -> str:
        """Hash of the weights that act, the tokenizer and the chat template: the key of cached reference scores."""
        digest = hashlib.sha256()
        with self.acting():
            for name, tensor in sorted(self.model.state_dict().items()):
                if self._adapters_off and "lora_" in name:
                    continue
                data = tensor.detach().cpu().contiguous()
                digest.update(f"{name.replace('.base_layer', '')} {data.dtype} {tuple(data.shape)}".encode())
                digest.update(
                    data.view(torch.uint8).numpy() if data.dim() else data.reshape(1).view(torch.uint8).numpy()
                )
        digest.update(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode())
        digest.update(str(self.tokenizer.chat_template).encode())
        return digest.hexdigest()

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Inside it the model acts as this policy does: adapters off for a LoRA reference, dropout off."""
        training = self.model.training
        self.model.eval()
        off = cast(Any, self.model).disable_adapter() if self._adapters_off else contextlib.nullcontext()
        try:
            with off:
                yield
        finally:
            self.model.train(training)

    # --------------------------------------------------------------------------------------------------------- tokens

    def encode_prompt(self, prompt: Text) -> list[int]:
        """Token ids of a prompt: a string as the tokenizer has it, messages through the chat template.

        At least one token: an empty prompt becomes the start (else the end) token. Raises ModelError without template.
        """
        if isinstance(prompt, str):
            ids = self.tokenizer(prompt, add_special_tokens=not self.is_encoder_decoder).input_ids
            if ids and ids[-1] == self.tokenizer.eos_token_id and not self.is_encoder_decoder:
                ids = ids[:-1]
        else:
            ids = self.tokenizer(self._chat(prompt, generate=True), add_special_tokens=False).input_ids
        if self.is_encoder_decoder:
            ids = [*ids, self.tokenizer.eos_token_id]
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        return list(ids) or [start]

    def encode_response(self, response: Text) -> list[int]:
        """Token ids of a response, the end token included: a string, or the messages of the last turn."""
        return self.encode_responses([response])[0]

    def encode_responses(self, responses: Sequence[Text | Graded]) -> list[list[int]]:
        """Token ids of many responses, each with the end token."""
        texts = [_response_text(response) for response in responses]
        end = self.tokenizer.eos_token_id
        encoded = self.tokenizer(texts, add_special_tokens=False).input_ids if texts else []
        return [list(ids) if ids and ids[-1] == end else [*ids, end] for ids in encoded]

    def _chat(self, messages: Sequence[Any], *, generate: bool) -> str:
        if not self.tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {self.name} has no chat template and the prompt is a list of messages; "
                "give one with --chat-template FILE, or use plain strings"
            )
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=generate
            )
        except Exception as error:  # templates raise whatever their authors chose
            raise DataError(f"the chat template of {self.name} refused the messages: {first_line(error)}") from error
        return cast(str, text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response without its special tokens."""
        return cast(str, self.tokenizer.decode(list(ids), skip_special_tokens=True))

    # --------------------------------------------------------------------------------------------------------- scores

    def scores(self, trees: Sequence[logprobs.Tree], *, keep_hidden: bool = False) -> logprobs.TokenLogps:
        """What training scores the responses of `trees` by, with gradient: its sums are one number a response."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------------------- saving

    def save(self, folder: str | Path) -> Path:
        """Write an ordinary Hugging Face folder (safetensors; with adapters, a PEFT folder), whole or not at all."""
        folder = Path(folder)
        with atomic_folder(folder) as partial:
            self.write(partial)
        return folder

    def write(self, folder: Path) -> None:
        """Write model and tokenizer into an existing folder."""
        disable_progress_bar()
        cast(PreTrainedModel, self.model).save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)


def _response_text(response: Text | Graded) -> str:
    if isinstance(response, str):
        return response
    if isinstance(response, Graded):
        return response.text
    return "\n".join(str(message["content"]) for message in response)


def template_of(chat_template: str) -> str:
    """A Jinja template, given itself or as the path of one. Raises OptionError."""
    if "{" in chat_template:
        return chat_template
    path = Path(chat_template)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"chat template {path}: cannot be read as text ({first_line(error)})") from error
