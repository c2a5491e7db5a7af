"""A release served before its merge, by the real Triton, as its manifests say."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from delivery.git import Repository
from delivery.manifests.deployment import begin
from delivery.manifests.differences import documents_difference
from delivery.manifests.rendering import Documents, render
from delivery.manifests.server_pod import read_server_pod
from delivery.manifests.snapshot import snapshot
from delivery.model import golden
from delivery.model.contest import Rival, Side, compared
from delivery.model.pipeline_outputs import read_packaged, read_report
from delivery.model.replay import FAILS, Replay, replay
from delivery.oci.registry import pull
from delivery.oci.signature import SignatureError
from delivery.parameters import committed_parameters
from delivery.proposals.release_file import FIGURES, Release, read_release
from delivery.proposals.releases import all_releases, release_path, released
from delivery.proposals.signing import Trust, read_trust
from delivery.proposals.texts import describe
from delivery.triton import restricted
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.config_text import largest_batch
from delivery.triton.load import LOADS, Load, Speed, measure
from delivery.triton.server import Server, latest_version, ready_path
from workspace.errors import UserError, sentence
from workspace.markdown import cell

LOGS = Path(".local/logs")
BATCHES = (1, 7, 32)  # or as many as the model takes at once, if that is fewer
TOGETHER = 8  # clients at the same time


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, for a person."""

    name: str
    passed: bool
    detail: str


@dataclass
class Rehearsal:
    """What the report tells.

    Attributes:
        title: environment and commit.
        environment: whose release it is.
        candidate: the release under rehearsal, None if it cannot be read.
        champion: what the deployed branch releases now, if that is something else.
        checks: in the order in which they were made.
        speeds: for each load what the candidate and, if there is one, the champion did.
        rival: what is known of the champion beside the candidate.
        replay: what became of requests of the champion's clients.
        difference: of the rendered manifests, as unified diff.
        notes: what could not be compared and why.
    """

    title: str
    environment: str
    candidate: Release | None = None
    champion: Release | None = None
    checks: list[Check] = field(default_factory=list)
    speeds: list[tuple[Load, list[Speed]]] = field(default_factory=list)
    rival: Rival | None = None
    replay: Replay | None = None
    difference: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]


@dataclass(frozen=True)
class Subject:
    """A release that is served here for the rehearsal.

    A request may have `largest` pictures: the model's own configuration says so.
    """

    release: Release
    documents: Documents
    folder: Path
    requests: golden.Golden
    server: Server
    loading: float
    largest: int


def rehearse(
    rehearsal: Rehearsal,
    repository: Repository,
    base: str,
    head: str,
    image: str | None,
    work: Path,
) -> None:
    """Serve what a head would deploy and what the base releases side by side; fill the rehearsal.

    Another `image` takes the place of the head's release. Raises DeliveryError when the candidate
    cannot be served.
    """
    environment = rehearsal.environment
    with ExitStack() as servers:
        new = candidate(repository, head, environment, image, work / "candidate")
        servers.callback(new.server.kill)
        rehearsal.candidate = new.release
        if not image:
            rehearsal.checks.append(check_signature(new.release, read_trust(repository, base)))
        rehearsal.checks += [check_ready(new), *check_figures(new), *check_answers(new)]
        rehearsal.checks += check_restrictions(new)
        old = champion(rehearsal, repository, base, environment, work / "champion")
        if old:
            servers.callback(old.server.kill)
        accepted = committed_parameters(repository, head).release
        if rehearsal.champion and (work / "champion/model").is_dir():
            past = [each.release for each in all_releases(repository, base)]
            meet_clients(rehearsal, repository.folder, new, work / "champion/model")
            rehearsal.checks += check_clients(rehearsal, accepted.accept_interface_change, past)
        subjects = [new, old] if old else [new]
        called = [(each.server.ports, each.requests.images) for each in subjects]
        largest = min(each.largest for each in subjects)
        fit = dict.fromkeys(replace(load, batch=min(load.batch, largest)) for load in LOADS)
        for load in tqdm(fit, desc="measure", unit="load", disable=None):
            rehearsal.speeds.append((load, measure(called, load)))
        now = old.documents if old else {}
        rehearsal.difference = documents_difference(now, new.documents)


def candidate(
    repository: Repository, commit: str, environment: str, image: str | None, work: Path
) -> Subject:
    """Serve what a commit would deploy, or the same with another image."""
    release_file = snapshot(repository, commit, work / "manifests") / release_path(environment)
    model = work / "model"
    if image:
        pull(image, model)
        release = described(model, latest_version(model), image, commit)
        release_file.write_text(release.to_yaml())
    else:
        release = read_release(release_file)
        pull(release.image, model)
    return serve(release, release_file.parent, model, work.name)


def champion(
    rehearsal: Rehearsal, repository: Repository, base: str, environment: str, work: Path
) -> Subject | None:
    """Serve what the deployed branch releases now; note why where there is nothing to serve."""
    now = released(repository, base, environment)
    if now is None or now == rehearsal.candidate:
        because = "nothing is released yet" if now is None else "this is what is released now"
        rehearsal.notes.append(f"There is nothing to compare with: {because}.")
        return None
    rehearsal.champion = now
    try:
        pull(now.image, work / "model")
        manifests = snapshot(repository, base, work / "manifests") / release_path(environment)
        return serve(now, manifests.parent, work / "model", work.name)
    except Exception as error:
        rehearsal.notes.append(
            f"The released model cannot be served here: {cell(sentence(error))}."
        )
        return None


def serve(release: Release, manifests: Path, model: Path, name: str) -> Subject:
    """Start Triton on a pulled model as the manifests say; wait for their own probe."""
    documents, requests = render(manifests), golden.load(model / "classifier/golden.npz")
    pod = read_server_pod(documents)
    server = begin(pod, model, LOGS / f"rehearse-{name}.log")
    try:
        server.wait(pod.ready_path, pod.starting)
        largest = largest_batch((model / "classifier/config.pbtxt").read_text())
    except BaseException:
        server.kill()
        raise
    loading = time.monotonic() - server.started
    return Subject(release, documents, model, requests, server, loading, largest)


def described(model: Path, version: int, image: str, commit: str) -> Release:
    """Return the release that the account in an image makes. Raises DeliveryError."""
    return describe(read_packaged(model), version, image, commit)


def meet_clients(rehearsal: Rehearsal, root: Path, new: Subject, served: Path) -> None:
    """Compare with the released model, and send the candidate what that one's clients send."""
    sides = Side.of_image(new.folder), Side.of_image(served)
    here = root if has_test_pictures(root, new.release) else None
    rehearsal.rival = compared(*sides, root=here)
    try:
        rehearsal.replay = replay(new.server.ports, served, new.folder)
    except UserError as error:
        rehearsal.notes.append(
            f"The released model's requests cannot be sent here: {cell(sentence(error))}."
        )


def has_test_pictures(root: Path, release: Release) -> bool:
    """Tell whether the test pictures of a release are here."""
    try:
        return read_report(root).splits.test.sha256 == release.test_data
    except UserError:
        return False


# -- checks ----------------------------------------------------------------------------------------


def check_ready(subject: Subject) -> Check:
    """Tell how long the start took: a failure has ended the rehearsal already."""
    path = ready_path(subject.release.version)
    return Check("ready", True, f"{path} answered after {subject.loading:.1f} s")


def check_signature(release: Release, trust: Trust) -> Check:
    """Tell who signed the release, by the key of the branch that it is to be merged into."""
    try:
        return Check("signature", True, trust.judge(release))
    except SignatureError as error:
        return Check("signature", False, str(error))


def check_figures(subject: Subject) -> Iterator[Check]:
    """Compare what the release file says with the account that travels in the image."""
    release = subject.release
    told = described(subject.folder, release.version, release.image, release.commit)
    wrong = [
        f"{name} is {value} in the release file and {getattr(told, name)} in the image"
        for name, value in vars(release).items()
        if name != "signature" and getattr(told, name) != value
    ]
    detail = "; ".join(wrong) or f"{', '.join(FIGURES)} and revisions are those in the image"
    yield Check("figures", not wrong, detail)


def check_answers(subject: Subject) -> Iterator[Check]:
    """Send the golden requests, over both protocols, in several sizes, and all at once."""
    requests, ports = subject.requests, subject.server.ports
    for protocol in PROTOCOLS:
        with connect(protocol, ports, again=True) as client:
            for batch in dict.fromkeys(min(each, subject.largest) for each in BATCHES):
                result = golden.compare(client, requests, batch)
                yield check_answer(f"{protocol}, batches of {batch}", [result], subject)
    results = golden.compare_together(ports, requests, batch=1, clients=TOGETHER)
    yield check_answer(f"{TOGETHER} clients at once", results, subject)


def check_clients(
    rehearsal: Rehearsal, accepted: str | None, past: list[Release]
) -> Iterator[Check]:
    """Tell whether clients of the champion can go on calling.

    A change for them passes where params.yaml accepts it, or where the release was there before.
    """
    champion, candidate, rival = rehearsal.champion, rehearsal.candidate, rehearsal.rival
    if not (champion and candidate and rival):
        return
    made, change = rehearsal.replay, rival.change
    is_known = any(each.is_same_as(candidate) for each in past)
    passed = is_known or change == accepted if change else not (made and made.count(FAILS))
    told = [str(made)] if made else []
    if change:
        why = "released before" if is_known else "accepted in params.yaml"
        told = [f"{change} ({why if passed else 'not accepted in params.yaml'})", *told]
    yield Check(f"clients of model {champion.version}", passed, "; ".join(told))


def check_restrictions(subject: Subject) -> Iterator[Check]:
    """Try what only administrators may do, over both protocols."""
    granted = f"everyone gets {', '.join(restricted.OPEN)} and inference, nobody without the value "
    for protocol in PROTOCOLS:
        faults = "; ".join(restricted.faults(protocol, subject.server.ports))
        cure = f"give Triton `{restricted.argument(protocol)}` in argocd/base/triton/rollout.yaml"
        detail = f"{faults}: {cure}" if faults else granted + ", ".join(restricted.RESTRICTED)
        yield Check(f"{protocol}, administration", not faults, detail)


def check_answer(name: str, results: list[golden.Comparison], subject: Subject) -> Check:
    """Judge answers: same classes, same probabilities, from the released version."""
    versions = set().union(*(result.versions for result in results))
    passed = all(result.passed for result in results) and versions == {subject.release.version}
    worst = max(results, key=lambda result: (not result.passed, result.difference))
    answered = f"answered by version {', '.join(map(str, sorted(versions)))}"
    return Check(name, passed, f"{worst}, accuracy {worst.accuracy:.4f}, {answered}")
