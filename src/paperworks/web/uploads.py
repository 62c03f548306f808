"""Files that browsers send: kept apart from everything else, named by what is in them, never run as programs."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

from starlette.datastructures import UploadFile

from paperworks.core.errors import DataError, RunError
from paperworks.core.files import write_error

SUFFIXES = (
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
    ".parquet",
    ".jsonl.gz",
    ".json.gz",
    ".csv.gz",
    ".npz",
    ".hdf5",
    ".h5",
    ".txt",
)
_PIECE = 1 << 20
MOST_TIMES = 40  # the folder holds at most so many of the largest files


async def keep(upload: UploadFile, folder: Path, most_bytes: int) -> Path:
    """Stores an uploaded data file as `folder`/DIGEST/NAME and returns that path; the same content is stored once.

    Raises DataError for a kind of file that is no data, an empty one and one above `most_bytes`; RunError where the folder
    is full.
    """
    name = safe_name(upload.filename or "")
    folder.mkdir(parents=True, exist_ok=True)
    if sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > MOST_TIMES * most_bytes:
        raise RunError(f"{folder}: holds too many uploads; remove some that no run needs")
    temporary = folder / f".{secrets.token_hex(8)}.part"
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("xb") as file:
            while piece := await upload.read(_PIECE):
                size += len(piece)
                if size > most_bytes:
                    raise DataError(f"has more than {most_bytes / 1e6:g} MB; the server takes no more", file=name)
                digest.update(piece)
                file.write(piece)
        if not size:
            raise DataError("is empty; choose a file with rows", file=name)
        place = folder / digest.hexdigest()[:16] / name
        place.parent.mkdir(exist_ok=True)
        temporary.replace(place)
        return place
    except OSError as error:
        raise write_error(error, folder) from None
    finally:
        temporary.unlink(missing_ok=True)


def safe_name(name: str) -> str:
    """A file's name without its folders and without letters that mean something elsewhere.

    Raises DataError for a kind of file that is not taken.
    """
    plain = re.sub(r"[^\w.+=-]+", "-", re.split(r"[/\\]", name)[-1]).strip("-.")[-100:]
    suffix = next((suffix for suffix in SUFFIXES if plain.lower().endswith(suffix)), None)
    if suffix is None or plain.lower() == suffix:
        raise DataError(f"expected a data file ({', '.join(SUFFIXES)})", file=name[:100] or "the upload")
    return plain
