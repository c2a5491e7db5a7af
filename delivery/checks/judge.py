"""The judge: what a pull request changes decides what is looked at; all of it makes one verdict."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from delivery.checks import programs
from delivery.checks.changes import JUDGES, Changed, Changes
from delivery.checks.figures import Figures, judge_figures
from delivery.checks.findings import Finding, Part, tried
from delivery.checks.manifest_check import environment_difference, judge_manifests
from delivery.checks.pipeline_check import PARAMS, judge_data
from delivery.checks.rehearsal import Rehearsal, rehearse
from delivery.checks.release_rules import Proposed, check_file, read_proposed
from delivery.checks.witnesses import Witnesses
from delivery.oci.signature import SignatureError
from delivery.proposals.signing import read_trust
from workspace.settings import SettingsError, parse_yaml

SETTINGS = ("gate", "release", "check")  # sections of params.yaml that the judge goes by


def rehearsed(changes: Changes, proposed: Proposed, work: Path) -> Rehearsal:
    """Serve what the merge would serve, and what is served. Raises DeliveryError."""
    title = f"{proposed.environment} at {changes.head[:12]}"
    made = Rehearsal(title, proposed.environment)
    rehearse(made, changes.repository, changes.base, changes.tree, None, work)
    return made


@dataclass(frozen=True)
class Bench:
    """What a check works with: whom it asks, how it rehearses, how it runs programs."""

    witnesses: Witnesses = field(default_factory=Witnesses)
    rehearse: Callable[[Changes, Proposed, Path], Rehearsal] = rehearsed
    run: programs.Run = programs.run


@dataclass
class Verdict:
    """All that a check found.

    Attributes:
        changes: what was judged.
        judges: what of the judge itself the pull request changes; for an owner to look at.
        own_judge: whether the program that judged is the head's.
        parts: in their order.
        proposed, figures, rehearsal, signature: of a release, as far as the check got.
    """

    changes: Changes
    judges: list[str] = field(default_factory=list)
    own_judge: bool = False
    parts: list[Part] = field(default_factory=list)
    proposed: Proposed | None = None
    figures: Figures | None = None
    rehearsal: Rehearsal | None = None
    signature: str = ""

    @property
    def findings(self) -> list[Finding]:
        """Everything for which it is refused."""
        return [each for part in self.parts for each in part.findings]

    @property
    def undone(self) -> list[str]:
        """Everything that could not be judged."""
        return [each for part in self.parts for each in part.undone]

    @property
    def passed(self) -> bool:
        """Whether every part was done and found nothing."""
        return all(part.passed for part in self.parts)


def judge(changes: Changes, work: Path, bench: Bench) -> Verdict:
    """Judge a pull request; `work` is an empty folder for what is unpacked."""
    verdict = Verdict(changes, judges=changed_judges(changes))
    programs_change = any(JUDGES.fullmatch(each.path) for each in changes.files)
    verdict.own_judge = programs_change and changes.repository.head() == changes.head
    for changed in changes.of("release"):
        judge_release(verdict, changed, work / changed.path.split("/")[-2], bench)
    manifests, data = changes.of("manifests"), changes.of("data")
    if manifests:
        verdict.parts.append(
            tried("manifests", manifests[0].path, lambda part: judge_manifests(changes, part))
        )
    if data:
        verdict.parts.append(
            tried("data and parameters", data[0].path, lambda part: judge_data(changes, part))
        )
    for kind, judge_kind in (
        ("code", programs.judge_code),
        ("infrastructure", programs.judge_infrastructure),
        ("workflows", programs.judge_workflows),
    ):
        if files := changes.of(kind):
            folder = work / "programs" / kind / "head"
            look = partial(in_checkout, judge_kind, changes, folder, bench.run)
            verdict.parts.append(tried(kind, files[0].path, look))
    return verdict


def in_checkout(
    judge_kind: Callable[[Changes, Path, Part, programs.Run], None],
    changes: Changes,
    folder: Path,
    run: programs.Run,
    part: Part,
) -> None:
    """Judge a kind of change by programs, in a checkout of what the merge would have."""
    judge_kind(changes, programs.check_out(changes.repository, changes.tree, folder), part, run)


def changed_judges(changes: Changes) -> list[str]:
    """Name what the next pull requests would be judged by and this one changes."""
    found = [each.path for each in changes.files if JUDGES.fullmatch(each.path)]
    try:
        key = changes.parameters.release.signing_key
        found += [each.path for each in changes.files if each.path == key]
        was, will = (
            parse_yaml(content or b"{}", PARAMS)
            for content in (changes.before(PARAMS), changes.after(PARAMS))
        )
    except SettingsError:  # which is refused where data and parameters are judged
        return found
    if isinstance(was, dict) and isinstance(will, dict):
        sections = [name for name in SETTINGS if was.get(name) != will.get(name)]
        found += [f"{PARAMS} ({name})" for name in sections]
    return found


def judge_release(verdict: Verdict, changed: Changed, work: Path, bench: Bench) -> None:
    """Judge a release file; its image is touched only where the file is right."""
    changes, path = verdict.changes, changed.path
    work.mkdir(parents=True)

    def look_at_file(part: Part) -> None:
        verdict.proposed = read_proposed(changes, changed, part)
        if verdict.proposed:
            check_file(changes, verdict.proposed, bench.witnesses, part)

    verdict.parts.append(tried("release file", path, look_at_file))
    proposed = verdict.proposed
    if not proposed or not verdict.passed:
        verdict.parts[-1].told.append("The image was not touched, as the file is refused.")
        return

    def ask_signature(part: Part) -> None:
        trust = read_trust(changes.repository, changes.base)
        try:
            verdict.signature = trust.judge(proposed.release)
        except SignatureError as error:
            verdict.signature = "refused"
            key = "signature" if proposed.release.signature else "image"
            part.refuse(path, proposed.line(key), [str(error)])

    def compare(part: Part) -> None:
        verdict.figures = judge_figures(changes, proposed, work, part)

    def see_difference(part: Part) -> None:
        environment_difference(changes, proposed.environment, part)

    def serve(part: Part) -> None:
        verdict.rehearsal = bench.rehearse(changes, proposed, work / "rehearsal")
        for check in verdict.rehearsal.failed:
            part.refuse(path, proposed.line("image"), [f"{check.name}: {check.detail}"])

    for name, work_on in (
        ("signature", ask_signature),
        ("figures and gate", compare),
        ("manifests", see_difference),
        ("rehearsal", serve),
    ):
        if name == "rehearsal" and verdict.findings:  # what is refused need not be served
            return
        verdict.parts.append(tried(name, path, work_on))
