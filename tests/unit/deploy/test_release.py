"""What a tag publishes: the workflow's own steps, run here as far as they need no service."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import ROOT

WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
REHEARSAL = (ROOT / ".ci/release-check").read_text(encoding="utf-8")


VERSIONED = ("pyproject.toml", "deploy/kubernetes/base/kustomization.yaml", "deploy/helm/clerk-watcher/Chart.yaml")
"""Where the version stands."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make version` and the first step of a release read."""
    for name in ("Makefile", "CHANGELOG.md", ".ci/release-check", *VERSIONED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def refused(checkout: Path, **environ: str) -> str:
    """Return the last line of a rehearsal. Here it comes no further than its first step: nothing can be built."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "MAKE"))}
    done = subprocess.run(
        [checkout / ".ci/release-check"], env=cleared | environ, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    return done.stderr.splitlines()[-1]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("name", VERSIONED)
def test_a_release_has_one_version_everywhere(checkout: Path, name: str) -> None:
    assert refused(checkout).startswith("make: ")
    replace(checkout / name, f"ersion: {VERSION}" if "Chart" in name else VERSION, "9.9.9")
    assert "version" in refused(checkout) or "no dated section of 9.9.9" in refused(checkout)


def test_a_release_has_a_dated_section_of_the_changelog(checkout: Path) -> None:
    replace(checkout / "CHANGELOG.md", f"## {VERSION} (", f"## {VERSION} (not ")
    assert refused(checkout) == f"CHANGELOG.md has no dated section of {VERSION}"


@pytest.mark.parametrize(("tag", "passes"), [(f"v{VERSION}", True), ("v99.0.0", False), (VERSION, False)])
def test_only_the_tag_of_this_version_is_published(checkout: Path, tag: str, passes: bool) -> None:
    last = refused(checkout, GITHUB_REF_TYPE="tag", GITHUB_REF_NAME=tag, IMAGE="registry.test/clerk-watcher")
    assert (last == f"the tag {tag} is not v{VERSION}") is not passes


def test_a_chart_without_an_image_is_not_published(checkout: Path) -> None:
    last = refused(checkout, GITHUB_REF_TYPE="tag", GITHUB_REF_NAME=f"v{VERSION}")
    assert last.startswith("the variable IMAGE is not set")


def test_the_notes_are_the_section_of_the_changelog(tmp_path: Path) -> None:
    new = "new: [a](docs/a.md#b), [c](https://c.test/)"
    changelog = f"# Changelog\n\n## 1.1.0 (2027-01-01)\n\n{new}\n\n## 1.0.0 (2026-11-28)\n\nold\n"
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    (cutting,) = re.findall(r"^sed .* CHANGELOG.md (?=>)", REHEARSAL, re.MULTILINE)
    done = subprocess.run(
        ["/bin/bash", "-c", f"version=1.1.0; repository=https://git.test/o/r; {cutting}"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert (
        done.stdout.decode().strip() == "new: [a](https://git.test/o/r/blob/v1.1.0/docs/a.md#b), [c](https://c.test/)"
    )


def test_what_is_published_is_what_the_rehearsal_makes_and_ci_rehearses_it() -> None:
    steps = [each for job in WORKFLOW["jobs"].values() for each in job["steps"]]
    assert not any("make " in each.get("run", "") for each in steps)
    assert ".ci/run" in [each.get("run") for each in WORKFLOW["jobs"]["build"]["steps"]]
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").count("\nmake release-check\n") == 1
    (push,) = (each["with"] for each in steps if "build-push" in each.get("uses", ""))
    assert push["platforms"] == "linux/amd64,linux/arm64"
    assert push["sbom"] is True
    assert push["provenance"] == "mode=max"


@pytest.mark.parametrize("job", ["image", "chart"])
def test_image_and_chart_are_signed_by_the_workflow_itself(job: str) -> None:
    signing = [each["run"] for each in WORKFLOW["jobs"][job]["steps"] if "cosign sign" in each.get("run", "")]
    assert len(signing) == 1
    assert "--key" not in signing[0]
    assert WORKFLOW["jobs"][job]["permissions"]["id-token"] == "write"


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda path: path.name)
def test_each_action_is_pinned_by_its_commit_and_says_which_version_that_is(path: Path) -> None:
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert uses
    assert [each for each in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", each)] == []


def test_a_new_version_is_written_where_it_stands(checkout: Path) -> None:
    subprocess.run(["make", "version", "VERSION=7.8.9"], cwd=checkout, check=True, capture_output=True)  # noqa: S607
    replace(checkout / "CHANGELOG.md", f"## {VERSION} (", "## 7.8.9 (")
    assert refused(checkout).startswith("make: ")


def test_one_job_alone_may_write_to_the_repository() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    writing = {name for name, job in WORKFLOW["jobs"].items() if job["permissions"].get("contents") == "write"}
    assert writing == {"notes"}
