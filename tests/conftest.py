"""What holds for every test.

One thread for torch, in every process that a test starts, too: two OpenMP threads that meet another busy process on a
small machine wait for each other; measured, a training step of 0.1 s then takes seconds.

Files as parameters are named by their size: pytest would name a test by all their bytes, and an archive holds the time
at which it was made, so that two processes that share the tests would not agree on their names.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

_NAMED_WHOLE = 16


def pytest_make_parametrize_id(val: object) -> str | None:
    return f"{len(val)}-bytes" if isinstance(val, bytes) and len(val) > _NAMED_WHOLE else None
