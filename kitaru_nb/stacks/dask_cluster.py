"""A Dask cluster of this machine's processes: ``python -m kitaru_nb.stacks.dask_cluster WORKERS THREADS``.

It is a process of its own, because starting workers from the user's would run the user's script again in each of them.
It prints the scheduler's address, and nothing else there: what its workers print goes to its standard error. It ends
when its standard input does: with the process that started it, whatever becomes of that.
"""

from __future__ import annotations

import os
import sys

from distributed import LocalCluster


def main(workers: int, threads: int) -> None:
    """Run the cluster. 0 is Dask's own choice for the machine."""
    answer = os.dup(sys.stdout.fileno())  # not inherited by workers, who get standard error instead
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with LocalCluster(
        n_workers=workers or None,
        threads_per_worker=threads or None,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # Dask's own default listens on all interfaces
    ) as cluster:
        with os.fdopen(answer, "w") as told:
            print(cluster.scheduler_address, file=told)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
