"""What a tag publishes: the workflow's own steps, as far as they need no service, and the bill of materials."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import DOCKERFILE, ROOT

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


@pytest.mark.parametrize(("tag", "passes"), [(f"v{VERSION}", True), ("v99.0.0", False), (VERSION, False)])
def test_only_the_tag_of_this_version_is_published(checkout: Path, tag: str, passes: bool) -> None:
    last = refused(checkout, GITHUB_REF_TYPE="tag", GITHUB_REF_NAME=tag, IMAGE="registry.test/clerk-watcher")
    assert (last == f"the tag {tag} is not v{VERSION}") is not passes


def test_a_release_has_a_dated_section_and_its_chart_an_image(checkout: Path) -> None:
    last = refused(checkout, GITHUB_REF_TYPE="tag", GITHUB_REF_NAME=f"v{VERSION}")
    assert last.startswith("the variable IMAGE is not set")
    replace(checkout / "CHANGELOG.md", f"## {VERSION} (", f"## {VERSION} (not ")
    assert refused(checkout) == f"CHANGELOG.md has no dated section of {VERSION}"


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


def test_the_page_at_the_index_has_whole_links_alone(tmp_path: Path) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    (making,) = re.findall(r"^sed -Ei .*README.md\"$", REHEARSAL, re.MULTILINE)
    words = f"work={tmp_path}; mkdir $work/source; mv $work/README.md $work/source; version=1.1.0;"
    script = f"{words} repository=https://git.test/o/r; {making}"
    subprocess.run(["/bin/bash", "-c", script], check=True)
    page = (tmp_path / "source/README.md").read_text(encoding="utf-8")
    links = re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", page)
    assert len(links) > 25
    assert [link for _, link in links if not link.startswith(("https://", "#"))] == []
    assert {link.startswith("https://git.test/o/r/raw/v1.1.0/docs/") for is_picture, link in links if is_picture} == {
        True
    }
    assert any(link == "https://git.test/o/r/blob/v1.1.0/docs/store.md#several-replicas" for _, link in links)


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


@pytest.mark.parametrize("version", ["", "next"])
def test_without_a_version_nothing_is_written(checkout: Path, version: str) -> None:
    before = {name: (checkout / name).read_text(encoding="utf-8") for name in VERSIONED}
    words = ["make", "version", f"VERSION={version}"]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make version VERSION=1.2.0" in done.stderr
    assert {name: (checkout / name).read_text(encoding="utf-8") for name in VERSIONED} == before


def test_an_older_python_is_refused_in_a_sentence_and_leaves_nothing(checkout: Path) -> None:
    (checkout / ".ci/requirements.txt").touch()
    old = checkout / "old"
    old.write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.1\n[ $1 = --version ]\n")
    old.chmod(0o755)
    words = ["make", "demo", f"PYTHON={old}"]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.9.1 is too old: 3.11 or later is needed." in done.stderr
    assert not (checkout / ".venv").exists()


def test_nothing_is_published_before_all_was_tried() -> None:
    jobs = WORKFLOW["jobs"]
    assert jobs["image"]["needs"] == ["build", "try-image"]
    assert [jobs[name]["needs"] for name in ("chart", "wheel", "notes")] == ["image", "chart", "wheel"]
    (trial,) = (each["with"] for each in jobs["try-image"]["steps"] if "build-push" in each["uses"])
    assert trial["outputs"] == "type=cacheonly"


def test_a_new_version_is_written_where_it_stands(checkout: Path) -> None:
    subprocess.run(["make", "version", "VERSION=7.8.9"], cwd=checkout, check=True, capture_output=True)  # noqa: S607
    replace(checkout / "CHANGELOG.md", f"## {VERSION} (", "## 7.8.9 (")
    assert refused(checkout).startswith("make: ")


def test_what_is_published_is_rehearsed_and_one_job_may_write() -> None:
    steps = [each for job in WORKFLOW["jobs"].values() for each in job["steps"]]
    assert not any("make " in each.get("run", "") for each in steps)
    assert ".ci/run" in [each.get("run") for each in WORKFLOW["jobs"]["build"]["steps"]]
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").count("\nmake release-check ") == 1
    image = WORKFLOW["jobs"]["image"]["steps"]
    (push,) = (each["with"] for each in image if "build-push" in each.get("uses", ""))
    assert push["platforms"] == "linux/amd64,linux/arm64"
    assert push["sbom"] is True
    assert push["provenance"] == "mode=max"
    assert WORKFLOW["permissions"] == {"contents": "read"}
    writing = {name for name, job in WORKFLOW["jobs"].items() if job["permissions"].get("contents") == "write"}
    assert writing == {"notes"}


PINNED = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)(?: ; (.*?))? \\$", re.MULTILINE)


def pinned() -> dict[str, str]:
    """Return the version of each package that the image installs on Linux."""
    return {name: version for name, version, marker in listed() if marker != "sys_platform == 'win32'"}


def listed() -> list[tuple[str, str, str]]:
    _, runtime = re.findall(r"--require-hashes -r (\S+)", DOCKERFILE)
    found: list[tuple[str, str, str]] = PINNED.findall((ROOT / runtime).read_text(encoding="utf-8"))
    return found


def test_the_image_has_every_extra_whatever_the_version_of_python() -> None:
    assert [marker for _, _, marker in listed() if "python" in marker] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {re.split(r"\W", each)[0] for names in project["optional-dependencies"].values() for each in names}
    assert extras == {"apprise", "psycopg"}
    assert extras <= pinned().keys()
    assert not any(name in each for name in extras for each in project["dependencies"])
    assert not any(f"{name}==" in (ROOT / ".ci/requirements.txt").read_text(encoding="utf-8") for name in extras)


@pytest.mark.soak  # it installs all of the image once more, and as many packages to write it down
def test_the_bill_of_materials_names_what_the_image_installs_and_its_licences(tmp_path: Path) -> None:
    file = tmp_path / "sbom.cdx.json"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "COV"))}
    words = ["make", "--no-print-directory", "sbom", f"SBOM={file}"]
    subprocess.run(words, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=300)
    bill = json.loads(file.read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "clerk-watcher"
    named = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in bill["components"]}
    assert named == pinned()
    assert [each["name"] for each in bill["components"] if not each.get("licenses")] == []
