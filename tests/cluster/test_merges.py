"""Release, bump, promotion and going back, each by merging the branch that our command pushed."""

from delivered import Delivered


def test_what_is_merged_is_what_answers(delivered: Delivered) -> None:
    project = delivered.project
    first = delivered.serving()
    following = delivered.next_version()
    second = delivered.release(first.accuracy + 0.01)
    assert second.version == following

    project.delivery("promote")
    project.merge(f"release/production-v{second.version}")
    delivered.served(project.released("production"), "production")
    assert len(delivered.pods("production")) == 2

    project.delivery("rollback", "staging")
    project.merge(f"rollback/staging-v{second.version}-to-v{first.version}")
    assert project.released() == first
    delivered.served(first)
    delivered.answers(second, "production")
