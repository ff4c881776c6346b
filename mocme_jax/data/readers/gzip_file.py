"""Files compressed by gzip, read into memory within the bounds of a zip archive's members."""

import gzip
import io
import zlib
from pathlib import Path

from mocme_jax.data.readers.bounded_files import read_file
from mocme_jax.data.readers.zip_archive import INFLATED, RATIO
from mocme_jax.errors import UserError


def read_gzip(path: Path) -> bytes:
    """All bytes of a compressed file, its checksum verified.

    Raises:
      UserError: the file is missing, unreadable, no gzip file or truncated, or holds more than ``INFLATED`` bytes and
        more than ``RATIO`` times its length.
    """
    packed = read_file(path)
    most = max(INFLATED, RATIO * len(packed))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            data = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: truncated or not a gzip file ({str(error)[:120]}); fetch or write it again") from None
    if len(data) > most:
        raise UserError(
            f"{path}: contains more than {most:,} bytes from {len(packed):,} compressed bytes; decompress it"
        )
    return data
