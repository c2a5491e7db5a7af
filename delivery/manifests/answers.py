"""Whether what listens at an address answers as a release does, whoever it is."""

import multiprocessing
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from delivery.errors import DeliveryError
from delivery.model import golden
from delivery.oci.registry import parse_reference, pull
from delivery.proposals.release_file import Release
from delivery.triton.client import Client, RefusalError
from workspace.errors import sentence
from workspace.files import write

TIMEOUT = 5  # seconds of one request, if nothing is heard meanwhile
DEADLINE = 60  # seconds of all that a server is asked at a time
MEMORY = 4 * 2**30  # bytes for its answers, and for the program itself
GOLDEN = Path(".local/golden")  # golden requests by the digest of their image
PICTURES = 8  # of golden requests, one in each
NEAR = 0.01  # largest difference of a probability: accelerators round more coarsely than processors

Result = TypeVar("Result")


def serving(address: str, release: Release | None) -> str:
    """Say which versions of the model are ready at an address; of the released, that it answers.

    Whatever listens there may say that it is ready, so its answers are compared with those that
    are recorded in the released image.
    """
    try:
        ready = apart(ready_versions, address)
        running = f"model {' and '.join(map(str, ready))}" if ready else "nothing"
        if release and ready == [release.version]:
            running += doubt(address, release)
        return running
    except RefusalError:
        return "nothing"
    except DeliveryError as error:
        return f"no model ({error})"


def doubt(address: str, release: Release) -> str:
    """Say what is wrong with a server's golden answers; nothing if they are the release's."""
    try:
        requests = recorded(release.image).some(PICTURES)
    except Exception as error:  # an image is what somebody else wrote
        return f", whose answers cannot be compared ({sentence(error)})"
    try:
        result = apart(compare, address, requests)
    except Exception as error:  # so are the answers
        return f", which does not answer ({sentence(error)})"
    if result.versions != {release.version} or result.equal < result.images:
        return f", with other answers ({result.equal} of {result.images} have the recorded class)"
    far = not result.difference <= NEAR  # nor is NaN near
    return f", with other answers (they differ by {result.difference:.1e})" if far else ""


def apart(ask: Callable[..., Result], address: str, *arguments: Any) -> Result:
    """Ask what listens at an address from a process of its own: an answer may have no end.

    Raises DeliveryError, also when that takes too long or too much memory.
    """
    # a forked process would wait for threads that it does not have
    with multiprocessing.get_context("spawn").Pool(1, confine) as pool:  # ended with the block
        try:
            return pool.apply_async(ask, (address, *arguments)).get(DEADLINE)
        except multiprocessing.TimeoutError:
            raise DeliveryError(
                f"what answers at {address} did not come to an end within {DEADLINE:.0f} s: "
                "give another port"
            ) from None


def confine() -> None:
    """Let this process be ended, by itself if need be, and take only so much memory."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(2 * DEADLINE)
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))


def ready_versions(address: str) -> list[int]:
    """Ask which versions of the model are ready. Raises DeliveryError."""
    with Client("http", address, TIMEOUT) as client:
        return client.ready_versions()


def compare(address: str, requests: golden.Golden) -> golden.Comparison:
    """Send golden requests. Raises DeliveryError."""
    with Client("http", address, TIMEOUT) as client:
        return golden.compare(client, requests, batch=1)


def recorded(image: str) -> golden.Golden:
    """Return an image's golden requests, pulled once. Raises DeliveryError."""
    digest = parse_reference(image)[1]
    kept = GOLDEN / f"{digest.partition(':')[2]}.npz"
    try:
        return golden.load(kept)
    except DeliveryError:
        with tempfile.TemporaryDirectory(prefix="status-") as folder:
            pull(image, Path(folder) / "model")
            write(kept, (Path(folder) / "model" / "classifier" / "golden.npz").read_bytes())
    return golden.load(kept)
