"""Ask what callers reach one recorded request; end with 0 if it is answered well.

    python3 probe.py <golden.npz> <version>

Each minute it is another picture. While versions change, or where this one was taken away again,
another version may answer: that has other answers recorded, so that it answers at all is well then.
What went wrong is said on standard error. Beside it is `golden_answers.py`.
"""

import json
import os
import sys
import time
from array import array
from http.client import HTTPException
from itertools import islice
from urllib.error import HTTPError

from golden_answers import LENGTH, OPENER, inference, requests, same, told

PATIENCE = 10  # seconds until there is an answer


def main() -> str:
    """Compare one answer with the recorded one; return what is wrong, nothing if all is well."""
    file, version = sys.argv[1:]
    shape, pictures, recorded, tolerance = requests(file)
    chosen = int(time.time() / 60) % len(recorded)
    picture, right = next(islice(pictures, chosen, None)), recorded[chosen]
    try:
        answered_by, given = ask(shape, picture)
    except HTTPError as refusal:
        return f"no answer: {refusal.code} {refusal.read(500).decode(errors='replace')}"
    except (OSError, HTTPException) as error:
        return f"no answer: {error}"
    if answered_by != version:
        print(f"model {answered_by} answers, and not model {version}")
        return ""
    if same(given, right, tolerance):
        print(f"picture {chosen} is answered as recorded")
        return ""
    return f"picture {chosen} is not answered as recorded: {told(given)} for {told(right)}"


def ask(shape: list[int], picture: bytes) -> tuple[str, array]:
    """Return the version that answers, and its probabilities."""
    host, port = (os.environ[f"TRITON_SERVICE_{part}"] for part in ("HOST", "PORT"))
    url = f"http://{host}:{port}/v2/models/classifier/infer"
    with OPENER.open(inference(url, shape, picture), timeout=PATIENCE) as answer:
        length, content = int(answer.headers[LENGTH]), answer.read()
    return json.loads(content[:length])["model_version"], array("f", content[length:])


if __name__ == "__main__":
    sys.exit(main() or 0)
