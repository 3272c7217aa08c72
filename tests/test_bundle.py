"""A bundle opens only if every file is what the manifest says."""

import json
import shutil
from pathlib import Path

import pytest

from minet_sdk.bundle import MANIFEST, Manifest, bundled_names, file_problems, locate, open_bundle
from minet_sdk.errors import BundleError


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_opens_and_survives_a_round_trip(small_bundle: Path) -> None:
    bundle = open_bundle(small_bundle)
    assert bundle.manifest.scale == 2
    assert not file_problems(bundle)
    assert Manifest.from_json(bundle.manifest.to_json(), "again") == bundle.manifest
    golden = bundle.golden()
    assert golden is not None
    assert golden.error(golden.restored) == 0


def test_bundled_models_are_listed_and_open() -> None:
    assert {"minet-x2", "minet-x4"} <= set(bundled_names())
    for name in bundled_names():
        bundle = open_bundle(name)
        assert f"x{bundle.manifest.scale}" in name
        assert bundle.manifest.training["commit"]
        assert (bundle.location / "MODEL_CARD.md").is_file()


@pytest.mark.parametrize("name", ["model.onnx", "target.onnx", "weights.bin", "golden.npz"])
def test_one_flipped_bit_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} does not match its SHA-256"):
        open_bundle(copy)


def test_missing_file_is_named(copy: Path) -> None:
    (copy / "reference.onnx").unlink()
    with pytest.raises(BundleError, match=r"reference\.onnx is missing"):
        open_bundle(copy)


def test_a_manifest_that_lists_too_little_is_refused(copy: Path) -> None:
    edit(copy, files={})
    with pytest.raises(BundleError, match=r"does not list model\.onnx"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "bundle format 99"),
        ({"surprise": 1}, "unknown fields"),
        ({"scale": "two"}, "scale is 'two', expected int"),
        ({"precision": "fp4"}, "precision is 'fp4', this SDK knows fp32, fp16, bf16, int8, fp8"),
        ({"files": {"../../weights.bin": "0"}}, "lie in its own folder"),
    ],
)
def test_bad_manifests_say_what_is_wrong(copy: Path, changes: dict[str, object], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(BundleError, match=message):
        open_bundle(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "\x00\x01"])
def test_damaged_manifests_are_one_line(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError) as error:
        open_bundle(copy)
    assert "\n" not in str(error.value)


def test_a_folder_without_manifest_and_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="minet-sdk export"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match="neither a bundled model"):
        locate("minet-x3")
