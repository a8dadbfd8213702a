"""What a tag publishes: the workflow's own steps, run here as far as they need no service."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import ROOT

WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def step(job: str, name: str) -> str:
    """Return what a named step of a job runs."""
    (found,) = (each["run"] for each in WORKFLOW["jobs"][job]["steps"] if each.get("name") == name)
    return str(found)


def run(script: str, *, tag: str, cwd: Path) -> int:
    environ = os.environ | {"GITHUB_REF_NAME": tag}
    return subprocess.run(["/bin/bash", "-e", "-c", script], cwd=cwd, env=environ, check=False).returncode


@pytest.mark.parametrize(("tag", "passes"), [(f"v{VERSION}", True), ("v99.0.0", False), (VERSION, False)])
def test_only_the_tag_of_this_version_is_published(tag: str, passes: bool) -> None:
    checks = step("build", "the tag is the version, and the changelog has it")
    assert (run(checks, tag=tag, cwd=ROOT) == 0) is passes


def test_the_notes_are_the_section_of_the_changelog(tmp_path: Path) -> None:
    changelog = "# Changelog\n\n## 1.1.0 (2027-01-01)\n\nnew\n\n## 1.0.0 (2026-11-28)\n\nold\n"
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    cutting = step("notes", "the section of the changelog becomes the notes").partition("gh release")[0]
    assert run(cutting, tag="v1.1.0", cwd=tmp_path) == 0
    assert (tmp_path / "notes.md").read_text().split() == ["new"]


def test_what_is_made_and_published_is_there() -> None:
    steps = [each for job in WORKFLOW["jobs"].values() for each in job["steps"]]
    targets = {target for each in steps for target in re.findall(r"\bmake ([a-z ]+)", each.get("run", ""))}
    assert {word for words in targets for word in words.split()} == {"dist", "sbom"}
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in ("dist", "sbom"))
    (push,) = (each["with"] for each in steps if "build-push" in each.get("uses", ""))
    assert push["platforms"] == "linux/amd64,linux/arm64"
    assert push["sbom"] is True
    assert push["provenance"] == "mode=max"


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda path: path.name)
def test_each_action_is_pinned_by_its_commit_and_says_which_version_that_is(path: Path) -> None:
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert uses
    assert [each for each in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", each)] == []


def test_a_new_version_is_written_where_it_stands(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "deploy/kubernetes/base/kustomization.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run(["make", "version", "VERSION=7.8.9"], cwd=tmp_path, check=True, capture_output=True)  # noqa: S607
    found = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()}
    assert 'version = "7.8.9"' in found["pyproject.toml"]
    assert "newTag: 7.8.9" in found["kustomization.yaml"]


def test_each_job_has_only_the_rights_it_needs() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    writing = {name for name, job in WORKFLOW["jobs"].items() if job["permissions"].get("contents") == "write"}
    assert writing == {"notes"}
