"""The Triton model `monitor`: counts what callers send and what the network answers, as metrics.

A caller waits until `execute` returns, so it copies a few pictures and returns; a thread looks at
them. Whatever fails here is counted, and the answer that a caller gets is not touched.
"""

import json
import queue
import threading
import time
from pathlib import Path

import behaviour
import capture
import numpy as np
import triton_python_backend_utils as triton

A_SECOND = 50.0  # pictures that are looked at; of more, those that come first in each moment
WAITING = 100  # requests that may wait to be looked at: what comes while the thread is at work
PERIOD = 1.0  # seconds from one look at all that waits to the next: together they cost less
LABELS = {"model": "classifier"}
COUNTERS = {
    "behaviour_seen_total": "Pictures, by what became of them in the monitor",
    "behaviour_pictures_total": "Pictures that were looked at, by bins of a feature",
}
GAUGES = {
    "behaviour_reference_share": "Share of held-out pictures in a bin",
    "behaviour_reference_pictures": "Held-out pictures",
    "behaviour_reference_threshold": "Confidence above which an answer is sure",
    "behaviour_reference_accuracy": "Accuracy on validation pictures",
    "behaviour_reference_labelled": "Validation pictures",
}


class TritonPythonModel:
    """Triton creates one, calls `execute` with the requests that came together, and removes it."""

    def initialize(self, args):
        """Begin with metrics that are all there and zero, and the thread."""
        config = json.loads(args["model_config"])
        self.labels = LABELS | {"version": args["model_version"]}
        self.about = json.loads(config["parameters"]["about"]["string_value"])
        folder = self.about["captured"]
        self.capture = capture.Capture(folder, self.about["classes"]) if folder else None
        self.waiting = queue.Queue(WAITING)
        self.tokens, self.since = A_SECOND, time.monotonic()
        self.passed = {"judged": 0, "left out": 0, "failed": 0}
        self.told = dict.fromkeys(self.passed, 0)
        self.held = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def execute(self, requests):
        """Answer at once, whatever happens."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        """Give back the network's answers as they are; take in what was asked."""
        answers = triton.get_input_tensor_by_name(request, "answers").as_numpy()
        try:
            self.take(request, answers)
        except Exception:
            self.passed["failed"] += len(answers)
        return triton.InferenceResponse([triton.Tensor("probabilities", answers)])

    def take(self, request, answers):
        """Copy as many pictures for the thread as its time allows."""
        now = time.monotonic()
        self.tokens = min(A_SECOND, self.tokens + A_SECOND * (now - self.since))
        self.since = now
        wanted = min(len(answers), int(self.tokens))
        self.passed["left out"] += len(answers) - wanted
        if wanted:
            self.tokens -= wanted
            images = triton.get_input_tensor_by_name(request, "image").as_numpy()
            may = self.capture is not None and not capture.refused(request.parameters())
            few = images[:wanted].copy(), answers[:wanted].copy(), np.full(wanted, may)
            try:
                self.waiting.put_nowait(few)
            except queue.Full:  # the thread hangs, or has died
                self.passed["left out"] += wanted

    def work(self):
        """Look at pictures, and tell the server, until the end."""
        try:
            self.make_metrics()
        except Exception as error:
            triton.Logger.log_error(f"the monitor sees nothing: {error!r}")
            return
        while not self.ended.wait(PERIOD):
            if few := [self.waiting.get() for _ in range(self.waiting.qsize())]:
                self.judge(few)
            self.tell()

    def judge(self, few):
        """Count pictures into their bins; where one cannot be looked at, none of them is."""
        count = sum(len(images) for images, *_ in few)
        try:
            images, answers, may = (np.concatenate(each) for each in zip(*few, strict=True))
            figures = behaviour.figures(images, answers)
            found = behaviour.counts(figures, self.features)
        except Exception:
            self.passed["failed"] += count
            return
        for name, counted in found.items():
            self.found[name] += counted
        self.passed["judged"] += count
        if may.any():
            self.keep(images, figures, may)

    def keep(self, images, figures, may):
        """Keep pictures for labelling; whatever fails, the rest goes on."""
        try:
            chosen = np.flatnonzero(may & capture.wanted(figures, self.features))
            self.capture.keep(images[chosen], figures["class"][chosen])
        except Exception as error:
            self.capture = None
            triton.Logger.log_error(f"no picture is kept any more: {error!r}")

    def tell(self):
        """Add what was counted since the last time to the server's metrics."""
        try:
            for name, counted in self.found.items():
                for place in np.flatnonzero(counted):
                    self.bins[name][place].increment(float(counted[place]))
                    counted[place] = 0
            for outcome, count in self.passed.items():
                self.outcomes[outcome].increment(float(count - self.told[outcome]))
                self.told[outcome] = count
        except Exception as error:
            triton.Logger.log_error(f"the monitor's metrics cannot be written: {error!r}")

    def make_metrics(self):
        """Make a counter for each bin, and gauges of what the model said of held-out pictures."""
        self.families = {
            name: triton.MetricFamily(name=name, description=text, kind=kind)
            for kind, named in (
                (triton.MetricFamily.COUNTER, COUNTERS),
                (triton.MetricFamily.GAUGE, GAUGES),
            )
            for name, text in named.items()
        }
        reference = self.read_reference()
        usual = behaviour.usual(self.about["classes"])
        self.features = usual if reference is None else reference["features"]
        self.found = {
            name: np.zeros(len(each["bins"]), np.int64) for name, each in self.features.items()
        }
        self.outcomes = {
            outcome: self.metric("seen_total", outcome=outcome) for outcome in self.passed
        }
        self.bins = {
            name: [self.metric("pictures_total", feature=name, bin=bin) for bin in feature["bins"]]
            for name, feature in self.features.items()
        }
        if reference is not None:
            self.make_gauges(reference)

    def make_gauges(self, reference):
        """Tell what is expected of the bins, and of the accuracy."""
        for name, feature in self.features.items():
            counted = np.array(feature["counts"]) + 0.5
            for label, share in zip(feature["bins"], counted / counted.sum(), strict=True):
                self.metric("reference_share", feature=name, bin=label).set(float(share))
        for name in ("pictures", "threshold", "accuracy", "labelled"):
            self.metric(f"reference_{name}").set(float(reference[name]))

    def read_reference(self):
        """Return what the model's image says of held-out pictures, None where it says nothing."""
        path = Path(self.about["reference"])
        return json.loads(path.read_text()) if path.is_file() else None

    def metric(self, name, **labels):
        """Return the metric of these labels; it goes when nobody holds it any more."""
        made = self.families[f"behaviour_{name}"].Metric(labels=self.labels | labels)
        self.held.append(made)
        return made

    def finalize(self):
        """Let the thread end."""
        self.ended.set()
        self.thread.join(2 * PERIOD)
