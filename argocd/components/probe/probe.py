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
import zipfile
from array import array
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request

from golden_answers import LENGTH, LOOSEST, OPENER, TOLERANCE, parts, read, same, told

PATIENCE = 10  # seconds until there is an answer


def main() -> str:
    """Compare one answer with the recorded one; return what is wrong, nothing if all is well."""
    file, version = sys.argv[1:]
    with zipfile.ZipFile(file) as archive:
        (count, *shape), pixels = read(archive, "images")
        _, probabilities = read(archive, "probabilities")
        own = "tolerance.npy" in archive.namelist() and read(archive, "tolerance")[1][0]
    chosen = int(time.time() / 60) % count
    picture, right = (list(parts(each, count))[chosen] for each in (pixels, probabilities))
    try:
        answered_by, given = ask([1, *shape], bytes(picture))
    except HTTPError as refusal:
        return f"no answer: {refusal.code} {refusal.read(500).decode(errors='replace')}"
    except (OSError, HTTPException) as error:
        return f"no answer: {error}"
    if answered_by != version:
        print(f"model {answered_by} answers, and not model {version}")
        return ""
    if same(given, right, min(own or TOLERANCE, LOOSEST)):
        print(f"picture {chosen} is answered as recorded")
        return ""
    return f"picture {chosen} is not answered as recorded: {told(given)} for {told(right)}"


def ask(shape: list[int], picture: bytes) -> tuple[str, array]:
    """Return the version that answers, and its probabilities."""
    host, port = (os.environ[f"TRITON_SERVICE_{part}"] for part in ("HOST", "PORT"))
    size = {"binary_data_size": len(picture)}
    asked = {"name": "image", "shape": shape, "datatype": "UINT8", "parameters": size}
    wanted = {"name": "probabilities", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [asked], "outputs": [wanted]}).encode()
    url = f"http://{host}:{port}/v2/models/classifier/infer"
    request = Request(url, header + picture, {LENGTH: str(len(header))})
    with OPENER.open(request, timeout=PATIENCE) as answer:
        length, content = int(answer.headers[LENGTH]), answer.read()
    return json.loads(content[:length])["model_version"], array("f", content[length:])


if __name__ == "__main__":
    sys.exit(main() or 0)
