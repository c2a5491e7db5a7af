"""Release, bump, promotion and going back, each by merging the branch that our command pushed."""

from delivered import Delivered


def test_what_is_merged_is_what_answers(delivered: Delivered) -> None:
    project = delivered.project
    project.delivery("release")
    project.merge("release/staging-v1")
    delivered.served(project.released())
