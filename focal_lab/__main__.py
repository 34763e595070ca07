"""`python -m focal_lab`: the same as `focal-lab`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, which -m puts first; `main` puts it last
    from focal_lab.cli import main

    sys.exit(main())
