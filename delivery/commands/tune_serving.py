"""`make tune-serving`: the settings with which Triton answers most within a limit of latency.

Each setting is tried on the real server of this machine; the best is then measured against the
present one in turns, and written only where it is better beyond chance.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

from scipy.stats import ttest_rel
from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model import golden
from delivery.model.pipeline_outputs import MODEL
from delivery.triton.config_text import Settings, changed, settings
from delivery.triton.load import Load, Speed, measure
from delivery.triton.server import Server, latest_version, ready_path, start
from workspace.files import write
from workspace.machine import cores
from workspace.markdown import table

CONFIG = Path("serving/classifier/config.pbtxt")
REPORT = Path("tuning/serving.md")
LOG = Path(".local/logs/tune-serving.log")
WORK = Path(".local")
LOADING = 300.0  # seconds that a model may take to load
DELAYS = (None, 0, 500, 2000)  # microseconds; None: no batches
TURNS = 2  # of each setting
FINAL = 8  # of the best and the present one
CHANCE = 0.01  # that as large an advantage in the final comes of noise
MOST = 64  # clients


ARGUMENTS = {
    "--p99": {
        "type": float,
        "required": True,
        "metavar": "MS",
        "help": "milliseconds that 99 of 100 requests may take at most",
    },
    "--clients": {"type": int, "default": 8, "help": "that ask at a time; default: 8"},
}


def run(repository: Repository, p99: float, clients: int) -> None:
    """Try the settings, write the report, and the configuration if a better one was found."""
    if not p99 > 0 or not 1 <= clients <= MOST:
        raise DeliveryError(
            f"P99 is {p99:g} ms and CLIENTS {clients}: give a time above 0, and 1 to {MOST} clients"
        )
    text = (repository.folder / CONFIG).read_text()
    present, load = settings(text), Load("grpc", clients, 1)
    with tempfile.TemporaryDirectory(dir=work(), prefix="tune-serving-") as folder:
        trial = Trial(exported(text), Path(folder))
        speeds = {each: trial.speeds([each], load, TURNS)[0] for each in progress(present)}
        fit = {each: speed for each, speed in speeds.items() if speed.percentile(99) <= p99}
        best = max(fit, key=lambda each: fit[each].throughput, default=None)
        final = trial.speeds([best, present], load, FINAL) if best not in (None, present) else []
    better = bool(final) and is_better(final[0], final[1], p99)
    write(REPORT, report(load, p99, present, speeds, best, final, better))
    if best is None:
        lowest = min(speed.percentile(99) for speed in speeds.values())
        raise DeliveryError(
            f"with {clients} clients no setting keeps to {p99:g} ms, the lowest is {lowest:.1f} "
            f"({REPORT}): give a higher P99 or fewer CLIENTS"
        )
    if better:
        write(repository.folder / CONFIG, changed(text, best))
        print(f"{CONFIG} has now {best}: look at `git diff`, then run `make pipeline`")
    else:
        print(f"{CONFIG} stays as it is: {present}")
    print(f"{REPORT} has all settings, for the pull request")


def progress(present: Settings) -> Iterator[Settings]:
    """Give the settings that are tried, the present ones first, with a bar."""
    instances = sorted({1, 2, cores()})
    grid = [Settings(*each) for each in product(instances, sorted({1, cores()}), DELAYS)]
    sensible = [each for each in grid if each.instances * each.threads <= 2 * cores()]
    tried = list(dict.fromkeys([present, *sensible]))
    return iter(tqdm(tried, desc="measure", unit="setting", disable=None))


def work() -> Path:
    """Return the folder for what is made here and removed again."""
    WORK.mkdir(exist_ok=True)
    return WORK.absolute()


def exported(text: str) -> Path:
    """Return the exported model repository. Raises DeliveryError if its settings are others."""
    latest_version(MODEL)
    if not (MODEL / "classifier/config.pbtxt").read_text().startswith(text):
        raise DeliveryError(
            f"the exported model has other settings than {CONFIG}: run `make pipeline`"
        )
    return MODEL


class Trial:
    """Servers on copies of a model repository with other settings, in a folder."""

    def __init__(self, models: Path, folder: Path) -> None:
        """Read what is asked; nothing is started yet."""
        self.models, self.folder = models, folder
        self.pictures = golden.load(models / "classifier/golden.npz").images

    def speeds(self, tried: list[Settings], load: Load, turns: int) -> list[Speed]:
        """Measure settings in turns, each on a server of its own. Raises DeliveryError."""
        with ExitStack() as stack:
            servers = [stack.enter_context(self.serving(each)) for each in tried]
            called = [(server.ports, self.pictures) for server in servers]
            return measure(called, load, turns)

    @contextmanager
    def serving(self, wanted: Settings) -> Iterator[Server]:
        """Serve a copy of the model with other settings until the block ends."""
        copy = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copytree(self.models, copy, dirs_exist_ok=True)
        config = copy / "classifier/config.pbtxt"
        config.write_text(changed(config.read_text(), wanted))
        server = start(copy, LOG)
        try:
            server.wait(ready_path(latest_version(copy)), LOADING)
            yield server
        finally:
            server.kill()
            shutil.rmtree(copy)


def is_better(best: Speed, present: Speed, p99: float) -> bool:
    """Tell whether the best is faster in the final beyond chance, and within the limit."""
    found = ttest_rel(best.turns, present.turns, alternative="greater")
    return bool(found.pvalue < CHANCE) and best.percentile(99) <= p99


# -- report ----------------------------------------------------------------------------------------


def report(
    load: Load,
    p99: float,
    present: Settings,
    speeds: dict[Settings, Speed],
    best: Settings | None,
    final: list[Speed],
    better: bool,
) -> str:
    """Write the table for the pull request."""
    order = sorted(speeds, key=lambda each: -speeds[each].throughput)
    rows = [row(each, speeds[each], p99, "present" if each == present else "") for each in order]
    parts = [
        "# Serving tuned",
        f"{load.clients} clients over {load.protocol}, one picture each, on {cores()} cores of "
        f"this machine; 99 of 100 requests within {p99:g} ms. The local Triton runs the model by a "
        "stand-in for NVIDIA's backend: a cluster with GPUs needs figures of its own.",
        table(HEAD, rows, right=(3, 4, 5)),
    ]
    if best and final:
        rows = [row(best, final[0], p99, "best"), row(present, final[1], p99, "present")]
        verdict = "better beyond chance: written" if better else "no better beyond chance: kept"
        parts += [f"The best and the present settings in {FINAL} turns: {verdict}."]
        parts += [table(HEAD, rows, right=(3, 4, 5))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


HEAD = ["instances", "threads", "batches", "pictures/s", "p50 ms", "p99 ms", ""]


def row(each: Settings, speed: Speed, p99: float, note: str) -> list[str]:
    """Write a line of the table."""
    delay = "no" if each.delay is None else f"{each.delay} µs delay"
    late = "" if speed.percentile(99) <= p99 else "too late"
    figures = (speed.throughput, speed.percentile(50), speed.percentile(99))
    marks = ", ".join(filter(None, (note, late)))
    return [str(each.instances), str(each.threads), delay, *(f"{f:.1f}" for f in figures), marks]
