"""A bundle goes to the Hub and comes back: against a server on this machine, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub
from tiny import E, tiny_synth

from ubf_augment import HSISynthesizer, get_generator
from ubf_augment.errors import BundleError
from ubf_augment.synthesis.hub import hub_card

FILES = {
    "README.md", "model_index.json", "endmembers.safetensors", "generator/config.json", "generator/model.safetensors",
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as found:
        yield found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = get_generator("gmm", num_endmembers=3, size=(8, 8), num_classes=3, components=2)
    synth = HSISynthesizer(E, generator, residual=tiny_synth().residual, classes=("Field", "Forest", "Lake"))
    return synth.save_pretrained(tmp_path_factory.mktemp("hub") / "toy")


def python(hub: Hub, home: Path, code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program for which the server is the Hub."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1",
    } | more  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )


PUSH = """
from ubf_augment import HSISynthesizer
synth = HSISynthesizer.from_pretrained({saved!r})
print(synth.push_to_hub("me/toy", licence="apache-2.0", token={token!r}))
try:
    synth.push_to_hub("me/toy", token="not mine")
except Exception as error:
    print(type(error).__name__, error)
"""
PULL = """
import torch
from ubf_augment import HSISynthesizer
ours, theirs = HSISynthesizer.from_pretrained({saved!r}), HSISynthesizer.from_pretrained("me/toy")
assert torch.equal(ours.sample(["Lake", "Field"], seed=0), theirs.sample(["Lake", "Field"], seed=0))
assert ours.classes == theirs.classes
print("the same")
"""


@pytest.mark.slow
def test_a_bundle_goes_to_the_hub_and_comes_back(hub: Hub, saved: Path, tmp_path: Path) -> None:
    done = python(hub, tmp_path / "a", PUSH.format(saved=str(saved), token=TOKEN))
    assert done.returncode == 0, done.stderr
    address, refused = done.stdout.splitlines()
    repository = hub.repositories["me/toy"]
    assert address == f"{hub.address}/me/toy/commit/{repository.branches['main']}"
    assert refused.startswith("BundleError the Hugging Face Hub did not take 'me/toy'")
    assert "hf auth login" in refused
    files = repository.commits[repository.branches["main"]]
    assert set(files) == FILES | {".gitattributes"}
    assert all(large == path.endswith(".safetensors") for path, (_, large) in files.items())
    card = files["README.md"][0].decode()
    assert card.startswith("---\nlibrary_name: ubf_augment\nlicense: apache-2.0\n")
    assert 'from_pretrained("me/toy")' in card

    pull = PULL.format(saved=str(saved))
    done = python(hub, tmp_path / "b", pull)  # another user, nothing in the cache
    assert done.stdout.strip() == "the same", done.stderr
    before = len(hub.requests)
    done = python(hub, tmp_path / "b", pull, HF_HUB_OFFLINE="1")
    assert done.stdout.strip() == "the same", done.stderr
    assert len(hub.requests) == before
    hub.down = True
    done = python(hub, tmp_path / "b", pull)  # the Hub is away: the cache serves
    assert done.stdout.strip() == "the same", done.stderr


AGAIN = """
import torch
from ubf_augment import HSISynthesizer
synth = HSISynthesizer.from_pretrained({saved!r})
synth.push_to_hub("me/toy", token={token!r})
plain = HSISynthesizer(synth.endmembers, synth.generator, classes=synth.classes)
plain.push_to_hub("me/toy", token={token!r}, revision="plain", private=True, message="Without residuals")
assert HSISynthesizer.from_pretrained("me/toy").residual is not None
assert HSISynthesizer.from_pretrained("me/toy", revision="plain").residual is None
for name, options in (("me/nothing", {{}}), ("me/toy", {{"revision": "nowhere"}})):
    try:
        HSISynthesizer.from_pretrained(name, **options)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_branches_and_what_is_not_there(hub: Hub, saved: Path, tmp_path: Path) -> None:
    done = python(hub, tmp_path / "a", AGAIN.format(saved=str(saved), token=TOKEN))
    assert done.returncode == 0, done.stderr
    nothing, nowhere = done.stdout.splitlines()
    assert nothing.startswith("BundleError no bundle 'me/nothing'")
    assert nowhere.startswith("BundleError no bundle 'me/toy'")
    assert "RevisionNotFoundError" in nowhere


def test_what_lies_here_has_no_revision(saved: Path) -> None:
    for name in (saved, str(saved), "aid-chikusei"):
        with pytest.raises(BundleError, match="has no revision 'v1'"):
            HSISynthesizer.from_pretrained(name, revision="v1")


@pytest.mark.parametrize("name", ["toy", "a/b/c", "../toy", ""])
def test_names_that_no_repository_can_have(name: str, saved: Path) -> None:
    with pytest.raises(BundleError, match="names no repository of the Hub"):
        HSISynthesizer.from_pretrained(saved).push_to_hub(name)


def test_the_card_of_the_hub_keeps_that_of_the_bundle() -> None:
    card = hub_card("# toy\n\nTwo bands.\n\n## Licence\n\nMIT\n", "me/toy")
    assert "license" not in card.split("---")[1]
    assert (
        card.index("# toy")
        < card.index("from_pretrained")
        < card.index("Two bands.")
        < card.index("## Licence")
    )
