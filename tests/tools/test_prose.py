from pathlib import Path

from prose import faults


def test_what_reads_badly_is_named_with_its_file(tmp_path: Path) -> None:
    program = tmp_path / "watcher"
    program.mkdir()
    (tmp_path / "README.md").write_text("Somebody is told. `test_nobody_is_told` is fine.\n")
    (tmp_path / "CHANGELOG.md").write_text("Somebody was told.\n")
    (program / "a.py").write_text('class Turn:\n    """What a turn is."""\n\n\nX = 1  # so many\n')
    (program / "b.py").write_text('class Turn:\n    """A turn of a sink."""\n')
    assert list(faults(tmp_path)) == [
        "README.md: told",
        "watcher/a.py: 'What a turn is.' begins with a relative word: say who does what to what",
        "watcher/a.py: so many",
        "Turn is a class in watcher/a.py and watcher/b.py: one name, one meaning",
    ]
