"""From a command line to options."""
