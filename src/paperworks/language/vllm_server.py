"""Sampling by a vLLM server: the adapter in training is loaded there by name, prompts go there as token ids.

The server is started beside the run, on a place that reads the run's folder:
`VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK`. Only adapters can be brought
there over HTTP, so that a run of full weights samples for itself. What the server draws is not drawn again by a run that is
resumed: it is bound to no bit-for-bit promise.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paperworks.core.errors import OptionError, RunError
from paperworks.core.seeding import derive_seed
from paperworks.language.data.schemas import Text
from paperworks.language.policy import Policy
from paperworks.language.sampling import Sample, Samples, end_tokens

_TRIES = 4
_KEYS = ("VLLM_API_KEY", "OPENAI_API_KEY")


class VllmServer:
    """A vLLM server at `url` (http://HOST:PORT), which loads adapters from below `folder`.

    Raises OptionError for another form of address, RunError where nothing answers there.
    """

    def __init__(
        self, url: str, folder: str | Path, *, timeout_seconds: float = 600.0, first_wait: float = 1.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise OptionError(f"vLLM server {url!r}: expected http://HOST:PORT, the key in {_KEYS[0]}")
        self.url, self._folder = url.rstrip("/").removesuffix("/v1"), Path(folder)
        self._timeout, self._first_wait = timeout_seconds, first_wait
        found = self._ask("/v1/models")
        try:
            self.base = str(found["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise RunError(f"{self.url}: answers, but names no model; expected a vLLM server") from None
        self._loaded: str | None = None
        self._number = 0

    def synchronise(self, policy: Policy) -> None:
        """Bring the server the adapter as it is now; the one before is unloaded. Raises OptionError, RunError."""
        if not policy.has_adapters:
            raise OptionError("a vLLM server takes adapters alone over HTTP: train with --lora")
        self._number += 1
        name = f"paperworks-{os.getpid()}-{self._number}"
        folder = (self._folder / name).resolve()
        policy.save(folder)
        self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        if self._loaded is not None:
            self._ask("/v1/unload_lora_adapter", {"lora_name": self._loaded})
            shutil.rmtree(self._folder / self._loaded, ignore_errors=True)
        self._loaded = name

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[Text],
        prompt_ids: Sequence[Sequence[int]],
        *,
        n: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        adapted: bool = True,
        concurrency: int = 16,
    ) -> list[Samples]:
        """`n` responses to every prompt, by the adapter brought last, or by the base where not `adapted`.

        The samples bring no log-probabilities: score them. Raises RunError.
        """
        ends = end_tokens(policy)

        def ask(index: int) -> Samples:
            body = {
                "model": self._loaded if adapted and self._loaded is not None else self.base,
                "prompt": list(prompt_ids[index]),
                "n": n,
                "max_tokens": min(max_new_tokens, policy.context_length - len(prompt_ids[index])),
                "temperature": temperature,
                "top_p": 1.0,
                "top_k": top_k or -1,
                "repetition_penalty": 1.0,  # what a model's generation_config.json says does not count
                "seed": derive_seed(seed, "vllm", index) % 2**31,
                "stop_token_ids": ends,
                "return_token_ids": True,
                "skip_special_tokens": True,
            }
            found = self._ask("/v1/completions", body)
            return Samples(
                prompts[index], tuple(self._read(policy, choice, ends) for choice in self._choices(found, n))
            )

        with ThreadPoolExecutor(concurrency, "vllm") as pool:
            return list(pool.map(ask, range(len(prompts))))

    def _choices(self, found: Any, n: int) -> list[Any]:
        choices = sorted(found.get("choices", []), key=lambda choice: choice.get("index", 0))
        if len(choices) != n:
            raise RunError(f"{self.url}: expected {n} responses, got {len(choices)}")
        return choices

    def _read(self, policy: Policy, choice: Any, ends: Sequence[int]) -> Sample:
        ids = choice.get("token_ids")
        if not isinstance(ids, list):
            raise RunError(f"{self.url}: answers without token_ids; expected a vLLM server of version 0.10.2 or later")
        return sample_of(policy, ids, choice.get("finish_reason") == "stop", ends, self.url)

    def _ask(self, path: str, body: Any = None) -> Any:
        """The JSON answer; {} where it is plain text. Tries again while the server is busy. Raises RunError."""
        headers = {"Content-Type": "application/json"}
        key = next((os.environ[name] for name in _KEYS if os.environ.get(name)), "")
        if key:
            headers["Authorization"] = f"Bearer {key.strip()}"
        data = None if body is None else json.dumps(body).encode()
        problem = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(self._first_wait * 2 ** (attempt - 1))
            try:
                request = urllib.request.Request(self.url + path, data, headers)
                with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                    text = reply.read().decode("utf-8", "replace")
                return json.loads(text) if text.lstrip().startswith(("{", "[")) else {}
            except urllib.error.HTTPError as error:
                said = " ".join(error.read(500).decode("utf-8", "replace").split())
                problem = f"HTTP {error.code} {said}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise RunError(f"vLLM server {self.url}{path}: {problem}; when it is well again, go on with --resume")


def sample_of(policy: Policy, ids: list[int], finished: bool, ends: Sequence[int], by: str = "vLLM") -> Sample:
    """What vLLM drew, with its end token where it ended by itself. Raises RunError for a response of no tokens."""
    if finished and (not ids or ids[-1] not in ends):
        ids = [*ids, int(policy.tokenizer.eos_token_id)]
    if not ids:
        raise RunError(f"{by}: gave a response of no tokens")
    return Sample(policy.decode(ids), tuple(ids), float("nan"), finished)
