"""Data sets of the Hugging Face hub, and folders that the `datasets` library can read.

The library is imported only here, and only when such a source is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paperworks.core.errors import DataError, OptionError, did_you_mean, first_line
from paperworks.language.data.sources import Records, Source

_BOTH_WAYS = (
    "load it where there is a network and keep it with save_to_disk, then give that folder; "
    "or give a file (.jsonl, .json, .csv, .tsv, .parquet)"
)


def open_hub(name: str, split: str | None) -> Source:
    """Opens `owner/name` or `owner/name:configuration` from the hub (or the library's own cache of it)."""
    import datasets

    dataset_id, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(dataset_id, configuration or None, split=split)
    except Exception as error:  # the library raises errors of many families: network, gating, builders, files
        if split is not None and "split" in str(error):
            raise OptionError(f"{name}: split {split!r}: {first_line(error)}") from None
        what = f"is no file here, and the hub did not give it ({first_line(error)})"
        raise DataError(f"{what}; {_BOTH_WAYS}", file=name) from None
    return _opened(name, loaded, None)


def open_folder(path: Path, split: str | None) -> Source:
    """Opens a folder written by `save_to_disk`, or one of data files."""
    import datasets

    saved = any((path / mark).exists() for mark in ("dataset_info.json", "dataset_dict.json", "state.json"))
    try:
        loaded = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:  # as above
        expected = "expected a folder written by save_to_disk, or one of data files"
        raise DataError(f"cannot be read ({first_line(error)}); {expected}", file=path) from None
    return _opened(str(path), loaded, split)


def _opened(name: str, loaded: Any, split: str | None) -> Source:
    if isinstance(loaded, dict):
        wanted = split if split is not None else "train" if "train" in loaded else None
        if wanted is None and len(loaded) == 1:
            wanted = next(iter(loaded))
        if wanted is None:
            raise OptionError(f"{name}: give --split (known: {', '.join(loaded)})")
        if wanted not in loaded:
            raise OptionError(f"{name}: unknown split {wanted!r}{did_you_mean(wanted, loaded)}")
        loaded = loaded[wanted]
    elif split is not None:
        raise OptionError(f"{name}: has no splits; leave --split out")
    return Source(name, _records(name, loaded), tuple(loaded.column_names or ()))


def _records(name: str, rows: Iterable[dict[str, Any]]) -> Records:
    number = 0
    try:
        for number, record in enumerate(rows, start=1):
            yield number, record
    except Exception as error:  # as above
        raise DataError(f"damaged after record {number} ({first_line(error)})", file=name) from None
