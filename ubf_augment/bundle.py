"""Pretrained bundles on disk: directories of JSON and safetensors, verified on reading, replaced atomically.

Layout (after diffusers)::

    model_index.json               format, package version, sensor, wavelengths, classes, card, sha256 sums
    endmembers.safetensors         endmembers, wavelengths, FWHM, class endmembers, residual model
    unmixing/config.json           constructor arguments
    unmixing/model.safetensors     weights
    generator/config.json
    generator/model.safetensors
    README.md                      the model card, for people; never read back

Reading runs no code from the bundle and no pickle.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ubf_augment.errors import BundleError, BundleVersionError

FORMAT_VERSION = 1
"""Version of the layout that is written; older ones stay readable, newer ones raise `BundleVersionError`."""

INDEX = "model_index.json"
ENDMEMBERS = "endmembers.safetensors"
_REMEDY = "copy or download the bundle again, or save it again with save_pretrained"
_COMPONENT = re.compile(r"[a-z_]+")
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
_DEAD = 3600.0  # seconds; no save takes as long
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Component:
    """One network of a bundle: JSON-able constructor arguments and a state dict.

    Attributes:
        config: constructor arguments.
        state: name → tensor.
        parameters: names in ``state`` that may be stored in half precision (weights, as opposed to buffers).
    """

    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Bundle:
    """The contents of a bundle, independent of the classes that use them.

    Attributes:
        index: JSON-able description; `write` adds format and package version and the checksums.
        tensors: contents of endmembers.safetensors.
        components: folder name → network.
        readme: text of README.md, the model card.
    """

    index: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    components: Mapping[str, Component] = field(default_factory=dict)
    readme: str = ""


def write(bundle: Bundle, directory: str | Path, *, dtype: str = "float32", overwrite: bool = True) -> Path:
    """Write a bundle into ``directory``, replacing a bundle that stands there.

    Everything is written and flushed beside the target and renamed into place at the end: whenever the
    process dies, `read` finds either the old or the new bundle, whole.

    Args:
        bundle: what to write.
        directory: target; it must not exist, be empty, or hold a bundle.
        dtype: storage of the networks' weights: "float32", "float16" or "bfloat16". Buffers and spectra keep
            their type.
        overwrite: replace a bundle that stands there.

    Returns:
        The directory.

    Raises:
        BundleError: if the target holds something else, or a weight does not fit into ``dtype``.
        FileExistsError: if a bundle stands there that is not to be replaced.
        OSError: that names the target, if it cannot be written (no space, no permission).
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    target = check_target(directory, overwrite=overwrite)
    try:
        _recover(target)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        try:
            _write_files(bundle, draft, _DTYPES[dtype])
            draft.chmod(0o755)
            _replace(draft, target, overwrite)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        if error.errno is None:  # with a message of its own
            raise
        raise type(error)(f"cannot write {target}: {error.strerror}") from error
    return target


def check_target(directory: str | Path, *, overwrite: bool = True) -> Path:
    """The absolute path of a directory that `write` may fill, whose parent is made; to be asked before a long training.

    Args:
        directory: it must not exist, be empty, or hold a bundle.
        overwrite: whether that bundle may be replaced.

    Raises:
        BundleError: if it exists, is not empty, and holds no bundle.
        FileExistsError: if it holds a bundle that is not to be replaced.
        OSError: if nothing can be written there.
    """
    target = Path(directory).absolute()
    if target.exists() and not (
        target.is_dir() and ((target / INDEX).is_file() or not any(target.iterdir()))
    ):
        raise BundleError(f"{target} exists and is not a bundle: choose another directory")
    if not overwrite and _here(target):
        raise FileExistsError(f"{target} is there already: give overwrite=true, or another out=…")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"cannot write {target}: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"cannot write {target}: {target.parent} is read-only for you")
    return target


def read(directory: str | Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: if a file is missing, unreadable or altered.
        BundleVersionError: if it was written in a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    root = _present(Path(directory).absolute())
    index = verify(root)

    def tensors(name: str) -> dict[str, Tensor]:
        try:
            return load_file(root / name)
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{root / name} cannot be read ({error}): {_REMEDY}") from error

    components = {
        name: Component(_json(root / name / "config.json"), tensors(f"{name}/model.safetensors"))
        for name in index["components"]
    }
    return Bundle(index, tensors(ENDMEMBERS), components)


def verify(directory: str | Path) -> dict[str, Any]:
    """Check format version, completeness and checksums of a bundle; returns its index.

    Raises:
        BundleError, BundleVersionError: as `read`.
    """
    root = _present(Path(directory).absolute())
    if not (root / INDEX).is_file():
        raise BundleError(
            f"{root} has no {INDEX}: it is not a bundle, or the bundle is incomplete; {_REMEDY}"
        )
    index = _json(root / INDEX)
    version = index.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(
            f"{root / INDEX} has no format_version: it is not a bundle of this package; {_REMEDY}"
        )
    if version > FORMAT_VERSION:
        raise BundleVersionError(
            f"{root} has format version {version}, written by ubf-augment {index.get('package_version')}; "
            f"this version reads up to {FORMAT_VERSION}: upgrade with pip install -U ubf-augment"
        )
    sums, parts = index.get("sha256"), index.get("components")
    if not isinstance(sums, dict) or sums.get(INDEX) != index_checksum(index):
        raise BundleError(f"{root / INDEX} was altered (its checksum differs): {_REMEDY}")
    if not isinstance(parts, list):
        raise BundleError(f"{root / INDEX} names its components as {parts!r}, not as a list: {_REMEDY}")
    if strange := [c for c in parts if not _COMPONENT.fullmatch(str(c))]:
        raise BundleError(
            f"{root / INDEX} names a component {strange[0]!r}, which is no folder of a bundle: {_REMEDY}"
        )
    needed = [ENDMEMBERS, *(f"{c}/{f}" for c in parts for f in ("config.json", "model.safetensors"))]
    if unlisted := [name for name in needed if name not in sums]:
        raise BundleError(f"{root / INDEX} lacks checksums of {', '.join(unlisted)}: {_REMEDY}")
    for name in needed:
        if not (root / name).is_file():
            raise BundleError(f"{root / name} is missing: {_REMEDY}")
        with (root / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sums[name]:
                raise BundleError(f"{root / name} was altered or truncated (its sha256 differs): {_REMEDY}")
    return index


def packaged_directory() -> Path:
    """Where the bundles that ship with the package lie."""
    return Path(str(resources.files("ubf_augment"))) / "weights"


def packaged() -> list[str]:
    """Names of the bundles that ship with the package, sorted."""
    return sorted(p.parent.name for p in packaged_directory().glob(f"*/{INDEX}"))


def is_hub_id(name: str) -> bool:
    """Whether a repository of the Hugging Face Hub can be called so.

    >>> is_hub_id("someone/some-bundle"), is_hub_id("../some-bundle")
    (True, False)
    """
    return _HUB_ID.fullmatch(name) is not None


def locate(name: str | Path, revision: str | None = None) -> Path:
    """Turn a packaged name, a directory or a Hugging Face Hub id into a directory, in this order.

    Args:
        name: which one.
        revision: of a Hub id: branch, tag or commit.

    Raises:
        BundleError: if nothing of that name is found, naming the packaged bundles; or for a revision of what lies here.
    """
    path = Path(name).expanduser()
    here = path.exists() or _previous(path.absolute()).exists()
    if isinstance(name, str) and name in packaged():
        path, here = packaged_directory() / name, True
    if here and revision is not None:
        raise BundleError(
            f"{path} lies here and has no revision {revision!r}: leave it out, or give a Hub id"
        )
    if here:
        return path
    known = f"packaged bundles: {', '.join(packaged()) or 'none'}"
    if isinstance(name, Path) or not is_hub_id(name):
        raise BundleError(f"no bundle {str(name)!r}: neither a packaged name nor a directory ({known})")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BundleError(
            f"no bundle {name!r} here ({known}); pip install huggingface_hub to look for it on the Hugging "
            "Face Hub"
        ) from error
    try:
        wanted = ["*.json", "*.safetensors", "README.md"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the hub client raises many types: HTTP, offline, unknown or gated repository
        raise BundleError(
            f"no bundle {name!r}: no such directory, and the Hugging Face Hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); {known}"
        ) from error


def _write_files(bundle: Bundle, root: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save

    files = {ENDMEMBERS: save({k: _plain(v) for k, v in bundle.tensors.items()})}
    for name, part in bundle.components.items():
        state = {
            k: _store(f"{name}/{k}", v, dtype if k in part.parameters else v.dtype)
            for k, v in part.state.items()
        }
        files[f"{name}/config.json"] = _dump(part.config)
        files[f"{name}/model.safetensors"] = save(state)
    index = dict(bundle.index) | {
        "format_version": FORMAT_VERSION,
        "package_version": _package_version(),
        "components": list(bundle.components),
        "sha256": {name: checksum(data) for name, data in files.items()},
    }
    index = json.loads(_dump(index))
    index["sha256"][INDEX] = index_checksum(index)
    files["README.md"] = bundle.readme.encode()
    files[INDEX] = _dump(index)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()  # safetensors refuses shared memory


def _store(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    plain = _plain(tensor)
    stored = plain.to(dtype) if plain.is_floating_point() else plain
    if torch.isfinite(plain).all() and not torch.isfinite(stored).all():
        raise BundleError(f"{name} does not fit into {dtype}: save with dtype='float32'")
    return stored


def _replace(draft: Path, target: Path, overwrite: bool) -> None:
    """Swap by renames; between them `_present` and `_recover` know where the old bundle is."""
    previous = _previous(target)
    if overwrite and target.exists():
        os.rename(target, previous)
    try:
        os.rename(draft, target)
    except OSError as error:
        if target.exists():  # not when this save began
            raise FileExistsError(f"{target} is there already: another process wrote it") from error
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _previous(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


def _here(target: Path) -> bool:
    """Whether there is a bundle that `read` would give."""
    return (target / INDEX).is_file() or (_previous(target) / INDEX).is_file()


def _present(target: Path) -> Path:
    """The directory to read: the target, or the old bundle if a save died between its two renames."""
    if target.is_dir():
        return target
    if (previous := _previous(target)).is_dir():
        return previous
    raise BundleError(f"there is no bundle directory {target}: check the name, or {_REMEDY}")


def _recover(target: Path) -> None:
    """Finish a save that died: bring the old bundle back, or remove it if the new one stands; remove old drafts."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.new-*"):
        if time.time() - draft.stat().st_mtime > _DEAD:
            shutil.rmtree(draft, ignore_errors=True)
    previous = _previous(target)
    if previous.is_dir() and target.exists():
        shutil.rmtree(previous, ignore_errors=True)
    elif previous.is_dir():
        os.rename(previous, target)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as JSON ({error}): {_REMEDY}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} does not hold a JSON object: {_REMEDY}")
    return value


def _jsonable(value: Any) -> Any:
    """JSON has no NaN and no tensors: null and lists."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _dump(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def checksum(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def index_checksum(index: Mapping[str, Any]) -> str:
    """Checksum of an index, without this very entry."""
    bare = dict(index) | {"sha256": {k: v for k, v in dict(index["sha256"]).items() if k != INDEX}}
    text = json.dumps(bare, sort_keys=True, ensure_ascii=False)
    return checksum(text.encode(errors="surrogatepass"))  # JSON can hold half a character


def _package_version() -> str:
    try:
        return metadata.version("ubf-augment")
    except metadata.PackageNotFoundError:
        return "unknown"
