"""`make pipeline` and `make train`: run what is out of date, and say what came out of it."""

import logging
import os
from pathlib import Path
from typing import Any

from delivery.dvc import make_raw, typed_dvc, unknown_data
from delivery.errors import DeliveryError
from delivery.git import TRACKED, Repository
from delivery.model.new_pictures import tested_since
from delivery.model.pipeline_outputs import ModelAccount, read_outputs
from delivery.parameters import read_parameters
from delivery.proposals.gate import GateError, challenge, check_gate, lowered
from delivery.proposals.release_file import Release
from delivery.proposals.releases import FIRST, released
from reporting import tracking
from workspace.errors import shown
from workspace.machine import this_machine

COMMIT = '`git add --all && git commit --message "Train" && git push`, then '


ARGUMENTS = {
    "--until": {"metavar": "STAGE", "help": "the last stage to run; default: all"},
    "--force": {"action": "store_true", "help": "run that last stage in any case"},
    "--pull": {"action": "store_true", "help": "take what was run elsewhere"},
}


def run(repository: Repository, until: str | None, force: bool, pull: bool) -> None:
    """Run the pipeline; of all of it, say what came out.

    Raises DeliveryError, and SettingsError before anything runs.
    """
    read_parameters(repository.folder)
    reproduce(repository.folder, until, force, pull)
    if not until:
        print(summary(repository))
        if address := this_machine().tracking:
            print(f"tracking: {tracking.send(repository.folder, address)}")


def reproduce(root: Path, until: str | None, force: bool, pull: bool) -> None:
    """Let DVC run the stages that are out of date; each says itself what it does.

    Raises DeliveryError.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.exceptions import MissingDataSource, StageCmdFailedError

    keep_headings()
    make_raw(root)
    os.environ["PYTHONUNBUFFERED"] = "1"  # stages print as they go, also into a pipe
    try:
        with Repo(str(root)) as repo:
            ran = repo.reproduce(until, force=force, single_item=force, pull=pull)
    except DvcException as error:
        cause = error.__cause__ or error
        if isinstance(cause, MissingDataSource):
            raise DeliveryError(f"{cause}: run `make data-pull`") from None
        if isinstance(cause, StageCmdFailedError):
            raise DeliveryError(f"{error}: it says why above") from None
        raise DeliveryError(" ".join(f"{error} ({cause})".split())) from None
    if not ran:
        print("nothing was out of date")


def keep_headings() -> None:
    """Let DVC say which stage runs and what fails, but none of its hints and notes."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    running = logging.getLogger("dvc.stage.run")
    running.setLevel(logging.INFO)
    running.addFilter(lambda record: str(record.msg).startswith("Running stage"))


def summary(repository: Repository) -> str:
    """Say how good the model is, where to look, whether it may be released, and what comes next."""
    account, tip = read_outputs(repository.folder), known_tip(repository)
    current = released(repository, tip, FIRST) if tip else None
    return "\n".join(
        [
            f"\nmodel:    {figures(account)}",
            *tested(repository, current),
            *([f"served:   {bits}"] if (bits := lowered(account.export)) else []),
            "page:     artifacts/report.html; `make report` adds latency and the served model",
            "pictures: plots/, explained in MODEL_CARD.md; `make serve` tries the model",
            *verdict(repository, account, current),
        ]
    )


def tested(repository: Repository, current: Release | None) -> list[str]:
    """Say how many test pictures are new since the released model, if that is known."""
    if current and (found := tested_since(repository, current.commit)):
        return [f"test set: {found.describe(f'model {current.version}')}"]
    return []


def figures(account: ModelAccount) -> str:
    """Write accuracy and macro F1 with their intervals."""
    metrics = account.metrics
    told = [
        f"{name} {share(getattr(metrics, key))}" + between(metrics.intervals.get(key))
        for name, key in (("accuracy", "accuracy"), ("macro F1", "macro_f1"))
    ]
    return f"{', '.join(told)} on {shown(metrics.support)} test pictures"


def between(interval: Any) -> str:
    """Write an interval of shares."""
    match interval:
        case [low, high]:
            return f" ({share(low)} to {share(high)})"
    return ""


def share(value: Any) -> str:
    """Write a share; what stands there instead is for the gate to refuse."""
    return f"{value:.1%}" if isinstance(value, int | float) else shown(value)


def verdict(repository: Repository, account: ModelAccount, current: Release | None) -> list[str]:
    """Say whether the gate would let the model pass as far as is known here, and what to do."""
    against = f"model {current.version} in {FIRST}" if current else "nothing, none is released"
    folder, parameters = repository.folder, read_parameters(repository.folder)
    champion = challenge(repository, current, parameters, network=False) if current else None
    silence = champion.rival.silence if champion else ""
    try:
        check_gate(account, parameters, champion, accept_test_data=bool(silence))
    except GateError as error:
        return [str(error)]
    if silence:
        return [f"gate:     not compared with {against}: {silence}", "next:     `make judge`"]
    raw = unknown_data(folder)
    add = f"`{typed_dvc(folder)} add {raw}`, " if raw else ""
    commit = add + (COMMIT if repository.changed_files() else "")
    return [
        f"gate:     would let it pass (compared with {against})",
        f"next:     {commit}`make release`",
    ]


def known_tip(repository: Repository) -> str | None:
    """Return the newest commit that is known of the branch that is deployed, without asking.

    Before the first commit there is none.
    """
    for name in (TRACKED, "HEAD"):
        if repository.says_yes("rev-parse", "--verify", name):
            return repository.ask("rev-parse", name)
    return None
