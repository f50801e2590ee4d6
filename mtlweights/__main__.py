"""``python -m mtlweights``: the command line, in the form that launchers of several processes take."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
