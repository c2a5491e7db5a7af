"""Ask the pods of a new version its golden requests; end with 0 if they answer as was recorded.

    python3 golden_answers.py <golden.npz> <version> <seconds>

It runs in the server's own image, beside the model's, with nothing but Python's library. The pods
are behind the Service `triton-canary`, which may lead elsewhere for a moment: what has no answer
yet is asked again until the seconds are over. What went wrong is said on standard error.
"""

import ast
import json
import math
import os
import struct
import sys
import time
import zipfile
from array import array
from collections.abc import Iterator
from http.client import HTTPException
from typing import IO
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

TOLERANCE = 1e-4  # largest difference of a probability that rounding explains, as in rehearsals
LOOSEST = 0.05  # of graphs in fewer bits, which say in golden.npz what theirs is
LENGTH = "Inference-Header-Content-Length"
CODES = {"u1": "B", "f4": "f", "f8": "d"}  # of numpy's types, as `array` has them
OPENER = build_opener(ProxyHandler({}))  # whatever the environment says of proxies


def main() -> str:
    """Compare all answers with the recorded ones; return what is wrong, nothing if all is well."""
    file, version, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    host, port = (os.environ[f"TRITON_CANARY_SERVICE_{part}"] for part in ("HOST", "PORT"))
    url = f"http://{host}:{port}/v2/models/classifier/versions/{version}/infer"
    shape, asked, recorded, tolerance = requests(file)
    answers = [ask(url, shape, each, end) for each in asked]
    pairs = zip(answers, recorded, strict=True)
    wrong = [(given, right) for given, right in pairs if not same(given, right, tolerance)]
    if not wrong:
        print(f"all of {len(answers)} answers are as recorded")
        return ""
    given, right = map(told, wrong[0])
    which = f"{len(wrong)} of {len(answers)} answers"
    return f"{which} are not as recorded: {given} for {right}, for example"


def requests(file: str) -> tuple[list[int], Iterator[bytes], list[array], float]:
    """Read the shape of a picture's request, the pictures, their answers, and the tolerance."""
    with zipfile.ZipFile(file) as archive:
        with archive.open("images.npy") as images:
            (_, *shape), _ = beginning(images)
        recorded = [*parts(*read(archive, "probabilities"))]
        own = "tolerance.npy" in archive.namelist() and read(archive, "tolerance")[1][0]
    return [1, *shape], pictures(file), recorded, min(own or TOLERANCE, LOOSEST)


def pictures(file: str) -> Iterator[bytes]:
    """Read one picture after the other: all of them may be more than the memory that is here."""
    with zipfile.ZipFile(file) as archive, archive.open("images.npy") as images:
        (count, *shape), _ = beginning(images)
        for _ in range(count):
            yield images.read(math.prod(shape))


def same(given: array, right: array, tolerance: float) -> bool:
    """Tell whether an answer has the recorded class and probabilities; NaN is like nothing."""
    return (
        len(given) == len(right)
        and all(abs(one - other) <= tolerance for one, other in zip(given, right, strict=True))
        and largest(given) == largest(right)
    )


def largest(answer: array) -> int:
    """Return which class is the most probable."""
    return max(range(len(answer)), key=answer.__getitem__)


def told(answer: array) -> str:
    """Name the most probable class of an answer."""
    return f"class {largest(answer)} of {len(answer)} with {answer[largest(answer)]:.4f}"


def read(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], array]:
    """Read an array of a numpy archive: its shape and all its values."""
    with archive.open(f"{name}.npy") as file:
        shape, code = beginning(file)
        return shape, array(code, file.read())


def beginning(file: IO[bytes]) -> tuple[tuple[int, ...], str]:
    """Read what an array's file begins with: its shape and the type of its values, for `array`."""
    # A name of six, and the format's version, which says how long the header's length is.
    first = file.read(8)
    width, code = (2, "<H") if first[6] == 1 else (4, "<I")
    (size,) = struct.unpack(code, file.read(width))
    header = ast.literal_eval(file.read(size).decode())
    return header["shape"], CODES[header["descr"][1:]]


def parts(shape: tuple[int, ...], values: array) -> Iterator[array]:
    """Divide the values of an array along its first axis."""
    size = math.prod(shape[1:])
    return (values[place * size : (place + 1) * size] for place in range(shape[0]))


def ask(url: str, shape: list[int], picture: bytes, end: float) -> array:
    """Return the probabilities of a picture; end the program if none come until `end`."""
    while True:
        try:
            with OPENER.open(inference(url, shape, picture), timeout=30) as answer:
                return array("f", answer.read()[int(answer.headers[LENGTH]) :])
        except HTTPError as refusal:
            reason = f"{refusal.code} {refusal.read(500).decode(errors='replace')}"
        except (OSError, HTTPException) as error:
            reason = str(error)
        if time.monotonic() > end:
            sys.exit(f"the new pods give no answer: {reason}")
        time.sleep(1)


def inference(url: str, shape: list[int], picture: bytes) -> Request:
    """Return the request for the probabilities of a picture, in Triton's binary form."""
    size = {"binary_data_size": len(picture)}
    asked = {"name": "image", "shape": shape, "datatype": "UINT8", "parameters": size}
    wanted = {"name": "probabilities", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [asked], "outputs": [wanted]}).encode()
    return Request(url, header + picture, {LENGTH: str(len(header))})


if __name__ == "__main__":
    sys.exit(main() or 0)
