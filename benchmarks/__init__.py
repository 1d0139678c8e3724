"""What a reader can run to get our figures again; threads are chosen before any benchmark imports torch."""

from common.threads import choose_threads

choose_threads()
