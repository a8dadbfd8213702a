"""The bill of materials, made as a release makes it. It needs the package registry, as `make test` does for `.venv`."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from deployment import DOCKERFILE, ROOT

PINNED = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)(?: ; (.*?))? \\$", re.MULTILINE)


def pinned() -> dict[str, str]:
    """Return the version of each package that the image installs on Linux."""
    return {name: version for name, version, marker in listed() if marker != "sys_platform == 'win32'"}


def listed() -> list[tuple[str, str, str]]:
    _, runtime = re.findall(r"--require-hashes -r (\S+)", DOCKERFILE)
    found: list[tuple[str, str, str]] = PINNED.findall((ROOT / runtime).read_text(encoding="utf-8"))
    return found


def test_what_is_installed_does_not_depend_on_the_version_of_python() -> None:
    assert [marker for _, _, marker in listed() if "python" in marker] == []


def test_the_image_has_every_extra_and_the_list_without_extras_has_none() -> None:
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
