"""``python -m kitaru_nb`` is the command ``kitaru``."""

from kitaru_nb.surfaces.cli import main

if __name__ == "__main__":
    main()
