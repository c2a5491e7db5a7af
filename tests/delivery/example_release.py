"""A release as `make release` writes it."""

from delivery.proposals.release_file import Release

RELEASE = Release(
    version=8,
    image="registry.example.com/digits@sha256:" + "1" * 64,
    accuracy=0.9877,
    macro_f1=0.9875,
    calibration_error=3.2e-05,
    loss=0.0431,
    support=360,
    data="a" * 64,
    test_data="b" * 64,
    code="c" * 64,
    commit="d" * 40,
)
