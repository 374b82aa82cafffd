"""Archives fetched from where their makers keep them."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from ubf_augment.errors import HSIReadError


def fetch_folder(url: str, root: Path) -> Path:
    """The folder that a ``.tgz`` archive holds, fetched and unpacked into ``root``.

    Archive and folder are whole or not there: both are written aside and renamed. The archive is kept, and not fetched again.

    Args:
        url: address of the archive, whose name is that of the folder.
        root: where both go; made if it is missing.

    Returns:
        ``root/<name>``.

    Raises:
        HSIReadError: if the address does not answer, or the archive is damaged (its own checksum says so) or holds no such
            folder.

    >>> with tempfile.TemporaryDirectory() as place:
    ...     source = Path(place, "a")
    ...     source.mkdir()
    ...     _ = (source / "b.txt").write_text("b")
    ...     with tarfile.open(f"{place}/a.tgz", "w:gz") as archive:
    ...         archive.add(source, "a")
    ...     found = fetch_folder(Path(place, "a.tgz").as_uri(), Path(place, "mine"))
    ...     (found / "b.txt").read_text()
    'b'
    """
    from torch.hub import download_url_to_file

    archive = root / url.rpartition("/")[2]
    folder = root / archive.stem
    by_hand = f"download it by hand and unpack it, so that {folder} is there"
    root.mkdir(parents=True, exist_ok=True)
    if not archive.is_file():
        try:
            download_url_to_file(url, str(archive))
        except OSError as error:
            raise HSIReadError(f"{url} cannot be fetched ({error}): try again later, or {by_hand}") from error
    with tempfile.TemporaryDirectory(dir=root) as aside:
        try:
            with gzip.open(archive) as stream:
                with tarfile.open(fileobj=stream, mode="r|") as content:
                    _unpack(content, Path(aside).resolve())
                while stream.read(1 << 20):  # a damaged header looks like the end: the checksum tells
                    pass
        except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError) as error:
            raise HSIReadError(
                f"{archive} is damaged ({error}): remove it to have it fetched again, or {by_hand}"
            ) from error
        if not (Path(aside) / folder.name).is_dir():
            raise HSIReadError(f"{archive} holds no folder {folder.name}: {by_hand}")
        (Path(aside) / folder.name).rename(folder)
    return folder


def _unpack(content: tarfile.TarFile, folder: Path) -> None:
    """Write the files of an archive, and nothing else that one can hold, into a folder.

    Raises:
        tarfile.ReadError: for a link, a device, or a file that would lie elsewhere.
    """
    for member in content:
        target = (folder / member.name).resolve()
        if not target.is_relative_to(folder) or not (member.isfile() or member.isdir()):
            raise tarfile.ReadError(f"{member.name} is no file inside it")
        if (data := content.extractfile(member)) is not None:  # None: a folder
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(data, file)
