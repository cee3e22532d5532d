"""``python -m tvdiff_pyg`` is ``tvdiff``."""
from tvdiff_pyg.cli import main

if __name__ == '__main__':
    main()
