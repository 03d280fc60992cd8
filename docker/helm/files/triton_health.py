"""Health check of Triton: 0 if the model answers a picture now, else 1 with the reason.

Triton's own `ready` goes on saying 200 after the process that runs a python model has died; only
an inference tells. Needs nothing but Python, for it also runs in NVIDIA's image.
"""

import json
import os
import sys
import urllib.error
import urllib.request

MODEL = f"http://127.0.0.1:{os.environ.get('TRITON_HTTP_PORT', '8000')}/v2/models/{os.environ.get('MODEL', 'clicv2')}"
TIMEOUT_S = 4.0  # below the 5 s after which the container's health check is killed without a word


def score_of_a_grey_picture() -> float:
    """Raises OSError, ValueError or LookupError if there is no sound answer."""
    with urllib.request.urlopen(MODEL, timeout=TIMEOUT_S) as response:
        tensor = json.load(response)["inputs"][0]
    height, width, channels = tensor["shape"][1:]  # [B, H, W, 3]
    pixels = bytes([128]) * (height * width * channels)
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": tensor["name"],
                    "shape": [1, height, width, channels],
                    "datatype": tensor["datatype"],
                    "parameters": {"binary_data_size": len(pixels)},
                }
            ],
            "outputs": [{"name": "score"}],
        }
    ).encode()
    request = urllib.request.Request(  # noqa: S310  # the address above is http and ours
        f"{MODEL}/infer",
        data=header + pixels,
        headers={"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        [score] = json.load(response)["outputs"][0]["data"]
    if not 0 <= score <= 1:  # NaN fails it too
        raise ValueError(f"the score of a grey picture is {score}")
    return float(score)


if __name__ == "__main__":
    try:
        score_of_a_grey_picture()
    except urllib.error.HTTPError as error:
        sys.exit(f"Triton: {error} {error.read(500)!r}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"Triton: {type(error).__name__}: {error}")
