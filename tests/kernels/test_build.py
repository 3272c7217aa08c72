"""The committed PTX is what the sources build anywhere, assembles for every architecture, spills nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest

from minet_sdk.errors import BackendError
from minet_sdk.kernels import binaries, build
from minet_sdk.kernels.binaries import Target

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def tools() -> build.Toolchain:
    return build.Toolchain()


def only(ptx: str, entry: str) -> str:
    """A PTX text with one entry."""
    header = ptx[: ptx.index(".visible .entry")]
    start = ptx.index(f".visible .entry {entry}(")
    end = ptx.find(".visible .entry", start + 1)
    return header + ptx[start : end if end > 0 else len(ptx)]


@pytest.mark.parametrize("name", build.TARGETS)
def test_the_committed_ptx_is_what_the_sources_give_elsewhere(
    tools: build.Toolchain, tmp_path: Path, name: Target
) -> None:
    sources = shutil.copytree(build.SOURCES, tmp_path / "a place with spaces")
    compiled = tools.compile(build.TARGETS[name].virtual, sources)
    label = binaries.manifest()["targets"][name]["instruction_set"]
    assert re.sub(r"^\.version .*$", f".version {label}", compiled, count=1, flags=re.MULTILINE) == binaries.ptx(name)


@pytest.mark.slow
def test_rebuilding_elsewhere_gives_the_committed_bytes(tmp_path: Path) -> None:
    """With the assembler's findings for every architecture, too."""
    sources = shutil.copytree(build.SOURCES, tmp_path / "a place with spaces")
    build.build(tmp_path / "built", sources)
    for name in ("minet_sm75.ptx", "minet_sm80.ptx", "manifest.json"):
        assert (tmp_path / "built" / name).read_bytes() == (binaries.FOLDER / name).read_bytes(), name


def test_nothing_spills_on_any_architecture() -> None:
    targets = binaries.manifest()["targets"]
    architectures = {name for target in targets.values() for entry in target["entries"].values() for name in entry}
    assert architectures == {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"}
    for target in targets.values():
        for entry, by_architecture in target["entries"].items():
            for architecture, resources in by_architecture.items():
                assert resources["spill_bytes"] == 0, (entry, architecture)
                assert resources["shared_bytes"] <= 48 * 1024, (entry, architecture)


def test_labels_are_the_oldest_that_assemble(tools: build.Toolchain) -> None:
    for name, older in (("sm75", "6.4"), ("sm80", "6.5")):
        ptx = binaries.ptx(name)
        label = binaries.manifest()["targets"][name]["instruction_set"]
        assert f"\n.version {label}\n" in ptx
        architecture = build.TARGETS[name].architectures[0]
        entry = only(ptx, "minet_gram_stacked_f16")
        assert tools.assemble(entry, architecture)
        with pytest.raises(BackendError, match="ptxas failed"):
            tools.assemble(entry.replace(f".version {label}", f".version {older}"), architecture)


def test_committed_files_are_small_plain_and_without_traces_of_a_machine() -> None:
    texts = [binaries.ptx("sm75"), binaries.ptx("sm80")]
    assert sum(len(text) for text in texts) < 1_500_000
    for text in texts:
        assert text.isascii()
        assert not re.search(r"^\.file|\.loc\b|/home|/tmp|/usr|\.cu\b", text, re.MULTILINE)
        assert ".local" not in text


def test_a_planted_spill_is_seen(tools: build.Toolchain) -> None:
    entry = "minet_gram_stacked_f32"
    starved = only(binaries.ptx("sm80"), entry).replace(".minnctapersm 3", ".maxnreg 40")
    assert ".maxnreg" in starved
    recorded = {entry: binaries.manifest()["targets"]["sm80"]["entries"][entry]}
    failures = build.resource_faults(tools.assemble(starved, "sm_90"), recorded, "sm_90")
    assert len(failures) == 1
    assert re.fullmatch(rf"{entry} on sm_90 spills \d+ bytes of registers to memory; none may", failures[0])


def test_more_registers_than_recorded_is_seen(tools: build.Toolchain) -> None:
    entry = "minet_normalise"
    found = tools.assemble(only(binaries.ptx("sm80"), entry), "sm_80")
    registers = found[entry].registers
    assert build.resource_faults(found, {entry: {"sm_80": {"registers": registers}}}, "sm_80") == []
    failures = build.resource_faults(found, {entry: {"sm_80": {"registers": registers - 1}}}, "sm_80")
    assert failures == [f"{entry} on sm_80 uses {registers} registers, recorded are {registers - 1}"]
    assert "no recorded bound" in build.resource_faults(found, {}, "sm_80")[0]


def test_a_tampered_file_is_seen(tmp_path: Path) -> None:
    shutil.copy(binaries.FOLDER / "manifest.json", tmp_path)
    for name in ("sm75", "sm80"):
        (tmp_path / f"minet_{name}.ptx").write_text(only(binaries.ptx(name), "minet_normalise"), encoding="ascii")
    failures = build.faults(tmp_path)
    assert "minet_sm80.ptx has another SHA-256 than manifest.json says: run `make kernels`" in failures
    assert "minet_mix_stacked_f16 is recorded but not in the PTX" in failures


def test_loading_refuses_a_tampered_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("manifest.json", "minet_sm75.ptx", "minet_sm80.ptx"):
        shutil.copy(binaries.FOLDER / name, tmp_path)
    path = tmp_path / "minet_sm75.ptx"
    path.write_bytes(path.read_bytes().replace(b"fma.rn.f32", b"fma.rz.f32", 1))
    monkeypatch.setattr(binaries, "FOLDER", tmp_path)
    load = binaries.ptx.__wrapped__
    assert load("sm80")
    with pytest.raises(BackendError, match=r"minet_sm75\.ptx is not the file that manifest\.json vouches for"):
        load("sm75")
    path.unlink()
    with pytest.raises(BackendError, match="is missing: install minet-sdk again"):
        load("sm75")


def test_targets_of_gpus() -> None:
    capabilities = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
    assert [binaries.target_for(capability) for capability in capabilities] == ["sm75"] + ["sm80"] * 6
    with pytest.raises(BackendError, match=r"compute capability 7\.0; the kernels need 7\.5"):
        binaries.target_for((7, 0))


def test_a_compiler_error_is_one_line(tools: build.Toolchain, tmp_path: Path) -> None:
    (tmp_path / "minet.cu").write_text("__global__ void broken() { undeclared = 1; }\n")
    with pytest.raises(BackendError, match=r"nvcc failed .* identifier \"undeclared\" is undefined") as error:
        tools.compile("compute_80", tmp_path)
    assert "\n" not in str(error.value)


def test_another_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvcc"
    fake.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(build.sysconfig, "get_paths", lambda: {"purelib": str(tmp_path)})
    with pytest.raises(BackendError, match=r"needs nvcc 13\.0\.88; found .*nvcc of another version: pip install"):
        build.Toolchain()


def test_a_difference_names_its_line(tmp_path: Path) -> None:
    manifest = json.loads((binaries.FOLDER / "manifest.json").read_text())
    assert manifest["nvcc"] == build.COMPILER
    assert build.first_difference(b"a\nb\nc", b"a\nx\nc") == 2
    assert build.first_difference(b"a\nb", b"a\nb\nc") == 3


@pytest.mark.slow
def test_check_passes_on_the_committed_files() -> None:
    assert build.main(["--check"]) == 0
