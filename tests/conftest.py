"""One thread for torch in every test and in every process that a test starts.

Two OpenMP threads that meet another busy process on a small machine wait for each other: measured,
a training step of 0.1 s then takes seconds.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
