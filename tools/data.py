"""Prepare and check your own data.

    knet data prepare images/ masks/ -o data/ped --classes person --stuff background --val 0.2
    knet data check data/ped
"""

import sys

from knet_plugin.datasets.command import main

if __name__ == '__main__':
    sys.exit(main())
