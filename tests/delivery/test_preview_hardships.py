"""A short form of what `make bench BENCHMARKS=preview_hardships` does for long."""

from pathlib import Path

from hardships import kill, poison
from previews import serving
from tiny_project import make_project


def test_the_good_model_answers_throughout_poisoned_commits(tmp_path: Path) -> None:
    with serving(make_project(tmp_path)) as running:
        met, asker = poison(running, count=10, seed=1)
    assert met.total() == 10
    assert set(asker.answered) == {1} and asker.errors == []


def test_what_git_says_serves_after_any_kill(tmp_path: Path) -> None:
    assert kill(tmp_path, count=10, seed=1).total() > 0
