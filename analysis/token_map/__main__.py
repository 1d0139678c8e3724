"""python -m analysis.token_map"""

from analysis.token_map.page import main
from common.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
