"""When this process began. Import-light."""

import time

BEGAN = time.perf_counter()  # this process, but for the start of Python
