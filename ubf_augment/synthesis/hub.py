"""A synthesizer as a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ubf_augment.errors import BundleError

if TYPE_CHECKING:
    from ubf_augment.synthesis.model import HSISynthesizer

TAGS = ("hyperspectral", "remote-sensing", "spectral-unmixing", "data-augmentation")


def push(
    synth: HSISynthesizer,
    repo_id: str,
    *,
    licence: str | None,
    private: bool | None,
    revision: str | None,
    message: str | None,
    token: str | bool | None,
    dtype: str,
) -> str:
    """Write the bundle aside and upload it in one commit; see `HSISynthesizer.push_to_hub`.

    Raises:
        BundleError: if the name is none of a repository, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    from ubf_augment import bundle

    if not bundle.is_hub_id(repo_id):
        raise BundleError(f"{repo_id!r} names no repository of the Hub: write 'your-name/name-of-the-bundle'")
    with TemporaryDirectory() as folder:
        files = synth.save_pretrained(Path(folder) / repo_id.rpartition("/")[2], dtype=dtype)
        card = files / "README.md"
        card.write_text(hub_card(card.read_text(encoding="utf-8"), repo_id, licence), encoding="utf-8")
        api = HfApi(token=token, library_name="ubf_augment")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=files, revision=revision, delete_patterns=["*.json", "*.safetensors"],
                commit_message=message or "Upload a bundle of ubf_augment",
            )  # fmt: skip
        except Exception as error:  # the hub client raises many types: HTTP, offline, no token, not yours
            first = str(error).splitlines()[0] if str(error) else ""
            raise BundleError(
                f"the Hugging Face Hub did not take {repo_id!r} ({type(error).__name__}: {first}): log in with `hf auth "
                "login` or give token=…, and check that the repository is yours"
            ) from error
    return str(done.commit_url)


def hub_card(card: str, repo_id: str, licence: str | None = None) -> str:
    r"""A model card as the Hub wants it: what search needs at its head, and how to load the bundle.

    Args:
        card: the bundle's.
        repo_id: of the repository.
        licence: identifier of the Hub, such as "apache-2.0".

    >>> card = hub_card("# toy\n\nTwo bands.", "me/toy", "mit")
    >>> print(card.split("tags:")[0])
    ---
    library_name: ubf_augment
    license: mit
    <BLANKLINE>
    """
    head = ["---", "library_name: ubf_augment", *([f"license: {licence}"] if licence else []), "tags:"]
    head += [*(f"- {tag}" for tag in TAGS), "---", ""]
    use = ["```python", "from ubf_augment import HSISynthesizer", "",
           f'synth = HSISynthesizer.from_pretrained("{repo_id}")', "```", ""]  # fmt: skip
    title, _, rest = card.partition("\n\n")
    return "\n".join([*head, title, "", *use, rest])
