"""python -m analysis.influence"""

from analysis.influence.measure import main
from common.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
